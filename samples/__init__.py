"""Sample episodes of freely licensed recordings, and the code that builds and serves them."""
