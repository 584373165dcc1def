"""A live web page on the pipeline's tables. It asks BigQuery, and knows neither Beam nor the pipeline's code."""
