"""Tables of steps: orders, tasks and rows that cannot be used."""

import pytest

from fusion.data.steps.annotation import Notes, StepError, group_films
from fusion.data.steps.table import read_steps


def read(tmp_path, text, max_bad=0.05, tasks=None):
    file, notes = tmp_path / "steps.csv", Notes()
    file.write_text(text)
    return read_steps(file, max_bad, notes, tasks), notes


def test_the_steps_of_a_film_are_in_the_order_in_which_they_begin(tmp_path):
    captions, notes = read(
        tmp_path,
        "video,step,start,end\na,stir,8,9\na,cut,1,3\na,stir,4,5\nb,fry,0,2.5\nb,cut,0:03,4\n",
    )
    first, second = group_films(captions)
    assert first.steps == ("cut", "stir")
    assert [tuple(i) for i in first.intervals] == [(1, 8, 9), (0, 1, 3), (1, 4, 5)]
    assert (second.steps, second.task) == (("fry", "cut"), "")
    assert notes.lines() == []


def test_an_order_goes_before_times(tmp_path):
    text = "video,step,start,end,order\na,stir,8,9,1\na,cut,1,3,2\n"
    captions, _ = read(tmp_path, text)
    assert group_films(captions)[0].steps == ("stir", "cut")
    with pytest.raises(StepError, match=r"line 2: order is 'x'; write a number"):
        read(tmp_path, text.replace("9,1", "9,x"))


def test_films_of_a_task_share_its_steps(tmp_path):
    text = (
        "end,start,task_id,text,video_id\n10,9,7,serve,a\n4,0,7,cut,a\n3,0,7,cut,b\n"
        "8,6,7,fry,b\n2,1,8,saw,c\n"
    )
    captions, notes = read(tmp_path, text)
    films = {film.video: film for film in group_films(captions)}
    # serve begins at 9/10 of a, fry at 6/8 of b, cut first
    assert films["a"].steps == films["b"].steps == ("cut", "fry", "serve")
    assert (films["a"].task, films["c"].task, films["c"].steps) == ("7", "8", ("saw",))
    tasks = {"7": ("serve", "cut", "fry", "wash"), "8": ()}
    captions, notes = read(tmp_path, text, tasks=tasks)
    assert {film.video: film.steps for film in group_films(captions)} == dict.fromkeys(
        "ab", tasks["7"]
    )
    assert notes.lines() == [
        "1 tasks without steps, left out (8)",
        "1 steps that occur nowhere ('wash' of 7)",
    ]
    _, notes = read(tmp_path, text, tasks={"7": ("cut", "fry"), "8": ("saw",)})
    assert notes.counts == {"steps that their task lacks, left out": 1}


def test_a_film_has_one_task(tmp_path):
    with pytest.raises(StepError, match="a has the tasks 7, 8; a film has one"):
        read(tmp_path, "video,step,start,end,task\na,cut,0,1,7\na,fry,1,2,8\n")


def test_rows_that_cannot_be_used_are_limited(tmp_path):
    good = "".join(f"a,step {i},{i},{i + 1}\n" for i in range(97))
    bad = "a,cut,5,4\na,,1,2\na,fry,x,9\n"
    with pytest.raises(ValueError, match=r"line 2: end \(4\) is not after start"):
        read(tmp_path, f"video,step,start,end\n{bad}", 0.0)
    captions, _ = read(tmp_path, f"video,step,start,end\n{good}{bad}")
    assert len(captions) == 97


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("video,step,start\na,cut,0\n", "line 1: no column end among video, step, start"),
        ("", "no column video, step, start, end among none"),
        ("video,step,start,end\n", "no steps; write one in each line"),
    ],
)
def test_a_table_without_steps(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, text)
