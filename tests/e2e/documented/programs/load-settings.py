#!/usr/bin/env python3
"""Loads a settings file as `otel-alloy` does, with the variables that there are."""

import os
import sys

from otel_alloy.errors import ConfigurationError
from otel_alloy.settings.loader import load_settings

if __name__ == "__main__":
    try:
        load_settings({}, os.environ, file=sys.argv[1])
    except ConfigurationError as error:
        sys.exit("\n".join(error.mistakes))
