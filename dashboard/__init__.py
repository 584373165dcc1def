"""A live web page on the pipeline's tables. It asks BigQuery, and runs without Beam."""
