"""Every example: python -m examples.all trains, times and writes all pages; --train or --time does a part."""

from __future__ import annotations

from examples import alarms, detection, reading, search, segmentation, vowels
from examples.study import run

STUDIES = (vowels.STUDY, detection.STUDY, segmentation.STUDY, reading.STUDY, alarms.STUDY, search.STUDY)

if __name__ == "__main__":
    run(*STUDIES)
