"""The engine that is Docker, or speaks its API. The docker package is imported only below this folder."""
