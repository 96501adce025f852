"""Films with steps as a data set: missing films, intervals beyond the end, limits."""

import pytest

from fusion.data.demo import demo_corpus
from fusion.data.steps import STEP_SETS
from fusion.data.steps.annotation import StepError


@pytest.fixture(scope="module")
def folder():
    return demo_corpus(size=2)


def write(tmp_path, folder, rows, head="video,step,start,end"):
    file = tmp_path / "steps.csv"
    film = folder / "videos" / "test_0000.mp4"
    lines = [row.replace("FILM", str(film)) for row in rows]
    file.write_text("\n".join([head, *lines]) + "\n")
    return str(file)


def test_problems_are_named_once_and_counted(tmp_path, folder, caplog):
    rows = ["FILM,first,1,3", "FILM,late,20,90", "FILM,never,95,99", "gone.mp4,first,0,2"]
    rows += [f"FILM,step {i},{i},{i + 1}" for i in range(3)]
    source = STEP_SETS["steps"](test=write(tmp_path, folder, rows), max_bad=0.6)
    clips = source.clips("test")
    (film,) = clips.films
    assert "never" in film.steps  # which is looked for, though it is nowhere
    assert film.steps[[i.step for i in film.intervals][1]] == "late"
    assert clips.notes.counts == {
        "films missing, left out": 1,
        "intervals beyond the end of their film, cut off there": 2,
    }
    said = [r.getMessage() for r in caplog.records if "steps.csv" in r.getMessage()]
    assert len([line for line in said if "films missing" in line]) == 1
    source.clips("test")
    again = [r.getMessage() for r in caplog.records if "steps.csv" in r.getMessage()]
    assert again == said
    windows = clips.windows_of(film)
    assert 20 < len(windows) < 30
    assert windows[0]["video"].shape[1] == 125


def test_too_many_missing_films_end_the_run(tmp_path, folder):
    rows = ["FILM,first,1,3", "gone.mp4,first,0,2"]
    source = STEP_SETS["steps"](test=write(tmp_path, folder, rows))
    with pytest.raises(ValueError, match=r"1 of 2 films are missing \(gone.mp4\); that is more"):
        source.clips("test")
    source = STEP_SETS["steps"](test=write(tmp_path, folder, rows[1:]), max_bad=1.0)
    with pytest.raises(StepError, match="1 of 1 films are missing"):
        source.clips("test")


def test_the_first_films_are_taken(tmp_path, folder):
    films = sorted((folder / "videos").glob("test_*.mp4"))
    rows = [f"{film},step {i},{i},{i + 1}" for film in films for i in range(3)]
    source = STEP_SETS["steps"](test=write(tmp_path, folder, rows))
    source.max_clips = 1
    clips = source.clips("test")
    assert [len(clips.films), len(clips)] == [1, 3]


def test_wrong_settings(tmp_path):
    with pytest.raises(StepError, match="data.form: unknown 'srt'; choose from table, crosstask"):
        STEP_SETS["steps"](form="srt")
    with pytest.raises(StepError, match="no such file or folder"):
        STEP_SETS["crosstask"](test=str(tmp_path / "nowhere")).clips("test")


def test_annotations_without_a_step_that_can_be_used_are_one_line(tmp_path, folder):
    rows = ["FILM,first,500,503"]
    source = STEP_SETS["steps"](test=write(tmp_path, folder, rows))
    with pytest.raises(StepError, match=r"no step of .*steps.csv can be used: 1 intervals beyond"):
        source.clips("test")
    rows, tasks = ["FILM,first,1,3,unknown"], tmp_path / "tasks.txt"
    tasks.write_text("1\ntitle\naddress\n1\nstir\n")
    file = write(tmp_path, folder, rows, "video,step,start,end,task")
    source = STEP_SETS["steps"](test=file, tasks=str(tasks))
    with pytest.raises(StepError, match=r"can be used: 1 tasks without steps, left out \(unknown"):
        source.clips("test")
