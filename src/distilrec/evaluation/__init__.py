"""Measuring: lists, metrics, costs, comparisons, and the report with its views. Never imports torch."""
