"""What Kubernetes objects mean: references, metadata, selectors, patches, schemas, tables. Pure."""
