"""What the node can do, as its faces see it: every verb with its parameters and result, and nothing behind them.

The node implements these; the local API carries exactly these; a client calls one by naming it (``client.call(Verbs.status)``).
Times are UTC milliseconds. Every verb raises ``LabxchangeError`` with a stable code: NodeLocked where the keys are needed and
sealed, InputError ``no-identity`` before `key create`, UnavailableError ``disk-full`` when the trail cannot be written, and what
its docstring names.
"""

from __future__ import annotations

from typing import Protocol

from labxchange.node.values import (
    ContactInfo,
    Diagnosis,
    EntryInfo,
    Exported,
    FileInfo,
    InboxItem,
    InvitationInfo,
    InvitationMade,
    Me,
    NodeStatus,
    ReceiptInfo,
    ReceiptPage,
    ReceivedInfo,
    ShareInfo,
    TransferInfo,
    WithheldInfo,
)


class Verbs(Protocol):
    """The one API of the node."""

    async def key_create(
        self,
        *,
        name: str,
        organisation: str,
        role: str = "",
        country: str = "",
        passphrase: str = "",
        credential_file: str = "",
        keyring: bool = False,
    ) -> Me:
        """Make this machine's identity, sealed under a passphrase, a credential file or the OS keyring."""
        ...

    async def key_show(self) -> Me:
        """One's own name, fingerprint and six words; works on a locked node."""
        ...

    async def key_backup(self, *, path: str, backup_passphrase: str, passphrase: str = "") -> Me:
        """Write the seed, sealed under ``backup_passphrase``, to a new file; ``passphrase`` opens the identity."""
        ...

    async def key_restore(
        self, *, path: str, backup_passphrase: str, passphrase: str = "", credential_file: str = "", keyring: bool = False
    ) -> Me:
        """Take up the identity of a `key backup` on a machine that has none."""
        ...

    async def unlock(self, *, passphrase: str = "", credential_file: str = "") -> Me:
        """Open the keys: by passphrase, by credential file, or by what the node remembers."""
        ...

    async def contact_invite(self, *, made_for: str = "") -> InvitationMade:
        """A new invitation; ``made_for`` the fingerprint of somebody already known."""
        ...

    async def contact_accept(self, *, text: str) -> ContactInfo:
        """Meet the person who sent an invitation: both become unverified contacts of each other."""
        ...

    async def contact_list(self) -> list[ContactInfo]:
        """All contacts."""
        ...

    async def contact_show(self, *, contact: str) -> ContactInfo:
        """One contact, with the evidence that is kept of their audit trail."""
        ...

    async def contact_invitations(self) -> list[InvitationInfo]:
        """The invitations that were made here, newest first, and how often each was tried again."""
        ...

    async def contact_verify(self, *, contact: str, words: list[str]) -> ContactInfo:
        """Compare the six words that the contact read out; raises InputError ``words-differ``."""
        ...

    async def contact_block(self, *, contact: str, reason: str = "") -> ContactInfo:
        """Refuse this key from now on; running transfers with it are cut."""
        ...

    async def contact_unblock(self, *, contact: str, reason: str = "") -> ContactInfo:
        """Let a blocked key connect again, unverified."""
        ...

    async def contact_accept_trail(self, *, contact: str, reason: str) -> ContactInfo:
        """Go on with a contact whose trail diverged or was rolled back; the evidence is kept."""
        ...

    async def share_create(
        self,
        *,
        paths: list[str],
        to: list[str],
        share: str = "",
        title: str = "",
        note: str = "",
        purpose: str = "",
        study: str = "",
        site: str = "",
        category: str = "",
        not_before: int = 0,
        not_after: int = 0,
        downloads: int = 3,
        withheld: list[WithheldInfo] | None = None,
    ) -> ShareInfo:
        """Share files or a folder with contacts; ``share`` names an own share to make its next version; ``withheld`` says what
        of these files was left out before."""
        ...

    async def share_list(self) -> list[ShareInfo]:
        """All own share versions."""
        ...

    async def share_status(self, *, share: str) -> ShareInfo:
        """One own share version, with 'did they get it?' for each recipient."""
        ...

    async def share_hashed(self, *, share: str) -> ShareInfo:
        """Wait until the manifest is signed (or hashing failed)."""
        ...

    async def share_revoke(self, *, share: str, contact: str = "", reason: str = "") -> ShareInfo:
        """End the grants of a share at once, for one contact or for all."""
        ...

    async def share_extend(self, *, share: str, until: int, contact: str = "", reason: str = "") -> ShareInfo:
        """Move the end of the grants of a share."""
        ...

    async def request_extension(self, *, share: str, until: int, sender: str = "", reason: str = "") -> InboxItem:
        """Ask the sender of an offered share for more time; ``sender`` as in ``receive``."""
        ...

    async def inbox_list(self) -> list[InboxItem]:
        """What others offer."""
        ...

    async def receive(
        self,
        *,
        share: str,
        sender: str = "",
        destination: str = "",
        rate: int = 0,
        priority: str = "normal",
        lanes: int = 0,
    ) -> TransferInfo:
        """Start receiving an offered share, or go on with it; ``sender`` a contact, where several offer what ``share`` names;
        ``destination`` an absolute folder; the rest as in ``transfer_limit``."""
        ...

    async def transfer_list(self) -> list[TransferInfo]:
        """All transfers, oldest first."""
        ...

    async def transfer_show(self, *, transfer: str) -> TransferInfo:
        """One transfer by its id or the beginning of it."""
        ...

    async def transfer_limit(
        self, *, transfer: str, rate: int | None = None, priority: str | None = None, lanes: int | None = None, reason: str = ""
    ) -> TransferInfo:
        """Choose anew for a transfer that is not over, running or not: ``rate`` in bytes a second (0: no limit), ``priority``
        low, normal or high, ``lanes`` 1 to 16 (0: automatic; the recipient's to say). What is None stays."""
        ...

    async def transfer_pause(self, *, transfer: str) -> TransferInfo:
        """Stop fetching; nothing verified is lost."""
        ...

    async def transfer_resume(self, *, transfer: str) -> TransferInfo:
        """Go on."""
        ...

    async def transfer_cancel(self, *, transfer: str) -> TransferInfo:
        """Give an incoming transfer up."""
        ...

    async def transfer_report(self, *, transfer: str) -> ReceivedInfo:
        """The verification report of an incoming transfer."""
        ...

    async def received_file(self, *, transfer: str, file: str) -> FileInfo:
        """A released file of an incoming transfer, by path or name: where it is and the digest that its bytes must have."""
        ...

    async def transfer_accept(self, *, transfer: str, findings: str = "") -> ReceiptInfo:
        """Sign that what was received is accepted; raises InputError ``not-received``, ``transfer-foreign``,
        ``findings-malformed``, ``accept-not-intact``, ``decided-too-often``."""
        ...

    async def transfer_reject(self, *, transfer: str, findings: str) -> ReceiptInfo:
        """Sign that what was received is rejected, and why; raises as ``transfer_accept``, and ``findings-missing``."""
        ...

    async def dataset_verify(self, *, transfer: str, folder: str = "") -> ReceivedInfo:
        """Verify the files of an incoming transfer again, in ``folder`` (empty: where they were received)."""
        ...

    async def receipt_show(self, *, transfer: str) -> ReceiptInfo:
        """The best receipt of a transfer, with its portable file."""
        ...

    async def receipt_page(self, *, transfer: str) -> ReceiptPage:
        """The best receipt of a transfer as a page to read, print and keep."""
        ...

    async def audit_list(
        self, *, event: str = "", about: str = "", since: int = 0, until: int = 0, limit: int = 100
    ) -> list[EntryInfo]:
        """Entries of the trail, newest first; ``event`` and ``about`` filter by text."""
        ...

    async def audit_export(
        self, *, path: str, form: str = "bundle", study: str = "", site: str = "", category: str = ""
    ) -> Exported:
        """Write the trail: ``form`` is jsonl, csv or bundle; study, site, category make an excerpt (bundle only)."""
        ...

    async def clock_reset(self, *, reason: str, passphrase: str = "") -> NodeStatus:
        """A person says that the machine's clock is right; needs a fresh unlock."""
        ...

    async def status(self) -> NodeStatus:
        """How the node is."""
        ...

    async def node_backup(self, *, path: str) -> NodeStatus:
        """A consistent copy of everything, keys sealed, while the node runs."""
        ...

    async def node_configure(self, *, port: int = 0, addresses: list[str] | None = None) -> NodeStatus:
        """Set the UDP port and the addresses that others are told; takes effect at the next start."""
        ...

    async def doctor(self, *, contact: str = "") -> list[Diagnosis]:
        """Check this machine, and the way to a contact."""
        ...


NAMES = frozenset(name for name in vars(Verbs) if not name.startswith("_"))
"""The verbs that the local API offers."""
