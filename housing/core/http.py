"""TODO docstring."""

import urllib.request

DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a server on this machine is behind no proxy
