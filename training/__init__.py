"""Training: read data, fit, measure, publish. Nothing here is imported when serving."""
