"""LISTEN: the errors that Alloy posts, which name the execution that failed and say why. Starlette
and uvicorn, the extra `webhook`, are imported only where a listener is opened."""
