"""The Hugging Face Hub: a folder becomes the content of a data set's repository, in one commit.

Who pushes is told by the Hub's own client: `HF_TOKEN`, or what `hf auth login` left. `HF_ENDPOINT` names another Hub.
"""

from pathlib import Path

from candist_core.errors import StoreError, TransientError

_REFUSED, _TOO_MANY, _SERVER = (401, 403), 429, 500


def push_folder(folder: Path, repository: str, message: str, tag: str, is_private: bool) -> str:
    """Make a repository of data hold these files and no others, and tag the commit.

    Args:
        folder: the files.
        repository: `OWNER/NAME`; made if it is not there.
        message: of the commit.
        tag: name of the commit; one that is there is kept.
        is_private: of a repository that is made; one that is there stays as it is.

    Returns:
        The URL of the commit.

    Raises:
        StoreError: no such name, or a token that is missing or may not do it.
        TransientError: the Hub does not answer, or asks to come again.

    Source:
        https://huggingface.co/docs/huggingface_hub/guides/upload
    """
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    api, where = HfApi(), f"repository {repository}"
    try:
        api.create_repo(repository, repo_type="dataset", private=is_private, exist_ok=True)
        # One commit takes away what the version before had and this one has not.
        commit = api.upload_folder(
            repo_id=repository,
            repo_type="dataset",
            folder_path=folder,
            commit_message=message,
            delete_patterns="*",
        )
        api.create_tag(repository, tag=tag, revision=commit.oid, repo_type="dataset", exist_ok=True)
    except HFValidationError as error:
        raise StoreError(where, "a name that the Hub does not take", "OWNER/NAME", "correct it") from error
    except HfHubHTTPError as error:
        raise _refusal(where, error.response.status_code) from error
    except httpx2.TransportError as error:
        raise TransientError(f"{where} at {api.endpoint}", f"no answer ({type(error).__name__}); run again") from error
    return str(commit.commit_url)


def _refusal(where: str, status: int) -> StoreError | TransientError:
    if status == _TOO_MANY or status >= _SERVER:
        return TransientError(where, f"HTTP {status} from the Hub; run again")
    if status in _REFUSED:
        step = "set HF_TOKEN to one with write access, or log in with `hf auth login`"
        return StoreError(where, f"a token that is missing or may not write (HTTP {status})", "one that may", step)
    return StoreError(where, f"HTTP {status} from the Hub", "a repository of data", "correct its name")
