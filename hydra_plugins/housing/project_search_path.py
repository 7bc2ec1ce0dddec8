"""Config files of a project of one's own, in front of those of the package."""

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

from housing.core.environment import OWN_CONFIG_PROVIDER, own_config_folder


class ProjectSearchPath(SearchPathPlugin):
    """Lets Hydra look into conf/ of the project of one's own first. Hydra finds this class itself."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Put the project's folder of config files in front of the package's."""
        folder = own_config_folder()
        if folder is not None and folder.is_dir():
            search_path.prepend(OWN_CONFIG_PROVIDER, f"file://{folder}", anchor="main")
