"""The status page: what it shows (`document`, `hours`), how it is served (`site`), how it looks (`index.html`)."""
