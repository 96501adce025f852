"""Evaluation protocols: which clips are queries and candidates, and how recalls are counted.

The literature uses several galleries of one test set, so every table names its protocol.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How an evaluation is counted.

    Attributes:
        name: as in tables and configs.
        rule: one sentence.
        clips: how many clips the test set must hold; None: any number.
        captions: how many captions they must have together, each a query and a candidate. None:
            each clip has one, and others of it are left out.
        counted: recalls are shares of so many queries; None: of the clips of the test set.
        gallery: how many clips are left in the published gallery; None: all.
        needs: modalities; a clip that lacks one is neither query nor candidate in any direction,
            and is a miss if it is counted.
        needs_entry: a key of published pickles, which replaces ``needs`` for them. Entries whose
            pickle of ResNet features lacks it are left out of every split, whichever features are
            read, and are misses if they are counted.
        may_lack: whether the file may lack clips that would be left out anyway.
    """

    name: str
    rule: str = "every clip is a query and a candidate"
    clips: int | None = None
    captions: int | None = None
    counted: int | None = None
    gallery: int | None = None
    needs: tuple[str, ...] = ()
    needs_entry: str | None = None
    may_lack: bool = False

    def check(self, num_clips: int, file: str, num_captions: int | None = None) -> None:
        """Raise ValueError if a test file has other numbers of clips or captions."""
        there, wanted, what = num_clips, self.clips, "clips"
        if num_clips == self.clips and self.captions is not None:
            there, wanted, what = num_captions or 0, self.captions, "captions"
        if wanted is None or there == wanted or (self.may_lack and there < wanted):
            return
        raise ValueError(
            f"{file} has {there:,} {what}, but the protocol {self.name} needs {wanted:,}; use"
            f" its test file, or set another data.protocol: {', '.join(PROTOCOLS)}"
        )

    def describe(self, num_clips: int) -> str:
        """Describe it in one sentence; say if a gallery of ``num_clips`` is not as published."""
        if self.gallery in (None, num_clips):
            return str(self)
        return f"{self} (here {num_clips:,}, not {self.gallery:,}: not the published gallery)"

    def __str__(self) -> str:
        return f"{self.name}: {self.rule}"


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol("all"),
        Protocol(
            "msrvtt-1k-A",
            "the 1,000 test clips of the JSFusion split with one caption each; all are queries and"
            " candidates",
            clips=1000,
        ),
        Protocol(
            "msrvtt-968-of-1000",
            "as published for AVLnet, MCN and EAO: of the 1,000 test clips of the JSFusion split"
            " those with sound (968) are queries and candidates, and the others count as misses",
            clips=1000,
            counted=1000,
            gallery=968,
            needs=("audio",),
            may_lack=True,
        ),
        Protocol(
            "msrvtt-full",
            "the 2,990 test clips with 20 captions each; a caption (59,800 queries) looks for its"
            " clip among 2,990, a clip (2,990 queries) for the best of its own captions among"
            " 59,800, where its rank is 1 + the captions of other clips that score higher, as in"
            " Collaborative Experts (arXiv:1907.13487); a side without text has one row per clip;"
            " intervals are over clips",
            clips=2990,
            captions=59_800,
        ),
        Protocol(
            "youcook2-3350",
            "the 3,350 validation clips without those in HowTo100M; all are queries and candidates",
            clips=3350,
        ),
        Protocol(
            "youcook2-3339-of-3350",
            "as published for EAO: of the 3,350 validation clips those with 2d_full in the pickle"
            " of ResNet features (3,339), whichever features are read, are queries and candidates,"
            " and the others count as misses; training goes without such clips too; where there is"
            " no such pickle, having video decides",
            clips=3350,
            counted=3350,
            gallery=3339,
            needs=("video",),
            needs_entry="2d_full",
            may_lack=True,
        ),
    )
}
