"""What is measured: counters, gauges and histograms, and their collector."""

from grym_nb.metrics.histogram import Histogram, HistogramSnapshot
from grym_nb.metrics.series import Counter, Gauge, Metrics, Sample

__all__ = ["Counter", "Gauge", "Histogram", "HistogramSnapshot", "Metrics", "Sample"]
