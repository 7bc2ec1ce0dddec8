"""TODO docstring."""

import urllib.request

NO_PROXY_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a server on this machine is behind no proxy
