"""The page that `pgml-tune report` writes: pure functions from what was read to HTML and SVG."""
