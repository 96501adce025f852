"""CrossTask's release: tasks, films, and what may be wrong with them."""

import pytest

from fusion.data.steps.annotation import Notes, StepError, group_films
from fusion.data.steps.crosstask import read_crosstask, read_tasks

TASKS = """23521
Make Jello Shots
https://www.wikihow.com/Make-Jello-Shots
3
pour water,stir mixture,serve

59684
Build Shelves
https://www.wikihow.com/Build-Shelves
0


"""


@pytest.fixture
def release(tmp_path):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "tasks_primary.txt").write_text(TASKS)
    (tmp_path / "annotations" / "23521_ab_c-1.csv").write_text("2,5.5,8\n1,0.2,3.1\n2,9,12.5\n")
    (tmp_path / "annotations" / "23521_empty.csv").write_text("")
    (tmp_path / "annotations" / "59684_shelf.csv").write_text("1,0,3\n")
    (tmp_path / "videos_val.csv").write_text("23521,ab_c-1,https://x\n23521,gone,https://x\n")
    return tmp_path


def test_a_release_is_read_with_a_line_for_each_kind_of_problem(release, caplog):
    notes = Notes()
    (film,) = group_films(read_crosstask(release, 0.05, notes))
    assert (film.video, film.task) == ("ab_c-1", "23521")
    assert film.steps == ("pour water", "stir mixture", "serve")
    assert [tuple(i) for i in film.intervals] == [(1, 5.5, 8), (0, 0.2, 3.1), (1, 9, 12.5)]
    assert notes.lines() == [
        "1 tasks without steps, left out (59684)",
        "1 films without annotation, left out (empty)",
        "1 steps that occur nowhere ('serve' of 23521)",
    ]
    notes.say("here")
    assert [r.getMessage() for r in caplog.records] == [f"here: {line}" for line in notes.lines()]


def test_a_list_chooses_the_films(release):
    notes = Notes()
    captions = read_crosstask(release, 0.05, notes, videos=release / "videos_val.csv")
    assert {caption.video for caption in captions} == {"ab_c-1"}
    assert notes.counts["films without annotation, left out"] == 1
    assert "(gone)" in notes.lines()[1]


def test_a_step_that_the_task_does_not_have_is_a_bad_line(release):
    file = release / "annotations" / "23521_ab_c-1.csv"
    file.write_text("4,0,1\nx,1,2\n1,2,1\n1,0,2\n")
    message = r"ab_c-1.csv, line 1: step is '4'; task 23521 has steps 1 to 3"
    with pytest.raises(ValueError, match=message):
        read_crosstask(release, 0.01, Notes())
    captions = read_crosstask(release, 1.0, Notes())
    assert [(c.step, c.start, c.end) for c in captions] == [(0, 0, 2)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no tasks; take tasks_primary.txt"),
        ("1\ntitle\n", "line 1: a task has five lines: .* here are 2"),
        (TASKS.replace("3\npour", "²\npour"), "line 1: a task has five lines"),
        (TASKS.replace("3\npour", "4\npour"), "task 23521 says it has 4 steps and lists 3"),
    ],
)
def test_a_file_of_tasks_that_is_none(tmp_path, text, message):
    (tmp_path / "tasks.txt").write_text(text)
    with pytest.raises(StepError, match=message):
        read_tasks(tmp_path / "tasks.txt", Notes())


@pytest.mark.parametrize("step", ["²", "٣", "9" * 5000])
def test_a_step_of_other_digits_is_a_bad_line(release, step):
    file = release / "annotations" / "23521_ab_c-1.csv"
    file.write_text(f"{step},0,1\n1,0,2\n")
    (kept,) = read_crosstask(release, 1.0, Notes())
    assert kept.step == 0


def test_a_file_with_a_huge_field_is_a_bad_line(release):
    file = release / "annotations" / "23521_huge.csv"
    file.write_text("1,0," + "9" * 200_000 + "\n")
    with pytest.raises(ValueError, match=r"23521_huge.csv cannot be read \(field larger"):
        read_crosstask(release, 0.01, Notes())
    assert len(read_crosstask(release, 1.0, Notes())) == 3


def test_what_is_not_there(tmp_path, release):
    with pytest.raises(StepError, match="tasks_primary.txt cannot be read"):
        read_crosstask(tmp_path / "annotations", 0.05, Notes())
    for file in (release / "annotations").iterdir():
        file.unlink()
    with pytest.raises(StepError, match="no annotations of films; they are named TASK_VIDEO.csv"):
        read_crosstask(release, 0.05, Notes())
