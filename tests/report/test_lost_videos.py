"""A report on a store of features, beside which there are no films."""

from fusion.report.gallery import GalleryResult, make_gallery
from fusion.tasks.retrieval_gallery import show_query


def test_videos_that_are_not_there_are_named_in_one_line(tmp_path, caplog):
    results = [
        GalleryResult(f"{n}@{start}", "a cat", tmp_path / f"gone{n}.mp4", start, 9.0, 0.5, True)
        for n in range(3)
        for start in (0.0, 1.0)
    ]
    page = make_gallery([show_query("x", 1, results), show_query("y", 1, results)], 10**6)
    assert len(caplog.records) == 1
    assert "no pictures of 3 videos in the report: there is no" in caplog.text
    assert "gone0.mp4; videos are looked for beside the caption file, and no setting" in caplog.text
    assert page.count("cannot be read") == 12
