"""A live web page on the pipeline's tables in BigQuery; runs without Beam."""
