"""HTTP client without a proxy, for servers on this machine."""

import urllib.request

# urllib would send requests to a local server through the proxy of the environment.
NO_PROXY_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
