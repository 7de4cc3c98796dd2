from bundle_world import bundle, bundle_path, split, student

__all__ = ["bundle", "bundle_path", "split", "student"]
