"""One Prefect task per stage of the corpus: thin, over the functions of `fsclap` and `storage`."""

import logging

# PREFECT_LOGGING_EXTRA_LOGGERS ships these loggers' records to the run, from the level that they let through.
for _name in ("fsclap", "storage"):
    logging.getLogger(_name).setLevel(logging.INFO)
