from bundle_world import bundle, bundle_path, split, student
from row_bundle_world import row_bundle, row_bundle_path, row_split, row_student

__all__ = [
    "bundle", "bundle_path", "row_bundle", "row_bundle_path", "row_split", "row_student", "split", "student",
]
