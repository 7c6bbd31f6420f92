"""Sample episodes built from freely licensed recordings, and what is needed to build, serve and check them."""
