"""Show runs on one page: the verdict, the likelihood from its sides, training, chains, samples beside the data.

python -m gwg_dist.report RUN                     writes RUN/report.html
python -m gwg_dist.report RUN OTHER --out both.html        runs side by side, and the settings in which they differ

The page is one file that asks no network. Of a run that has not ended it shows what there is.
"""

from gwg_dist.report.cli import main
from gwg_dist.report.page import report

__all__ = ["main", "report"]
