"""An image as text for other builders: Dockerfiles whose stages are named by content, and files for `docker buildx bake`."""
