"""Records of any commands and files, sorted by the SAE that they are of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from saeaudit.errors import AuditError
from saeaudit.escape import escape
from saeaudit.formats.reading import read_records
from saeaudit.formats.screen.layout import common_folder
from saeaudit.formats.screen.mediators import Listed
from saeaudit.formats.screen.scan import Scanned, limits_of
from saeaudit.formats.screen.score import Scored
from saeaudit.formats.screen.wording import short_name
from saeaudit.records import (
    ChoiceRecord,
    ClaimRecord,
    DictionaryRecord,
    ErrorRecord,
    Finding,
    FiringRecord,
    MediatorRecord,
    MediatorsSummary,
    Record,
    RuleResult,
    Run,
    ScanSummary,
    ScoreSummary,
    TokenRecord,
    Verdict,
)

SHORT = 24
"""Characters of a short name."""
WRITTEN = "what scan, mediators or score write"
"""What the files should be."""


@dataclass
class Audited:
    """What the records say of one SAE, or of one of its controls."""

    dictionary: DictionaryRecord
    scanned: Scanned
    """The scan, as its screen keeps it; without a summary where there was none."""
    listed: Listed
    """The mediators, likewise; of several runs the one that looked at the most tokens."""
    scored: Scored
    """The score, likewise; of several runs the one that looked at the most choices."""
    limits: dict[str, float]
    """Thresholds of the scan."""
    findings: list[Finding] = field(default_factory=list)
    """Pairs, groups and triples, in the order of the records."""
    choices: dict[tuple[int | None, tuple[int, ...]], ChoiceRecord] = field(default_factory=dict)
    """Token, and features of an example → its choice."""
    tokens: dict[int, str] = field(default_factory=dict)
    """Token → its text, where that is known."""
    firing: dict[tuple[int, ...], FiringRecord] = field(default_factory=dict)
    """Features of a finding or claim → how they fire; of several runs the one of the most tokens,
    and one with bits before one without."""

    folder: str = ""
    """What the ids of all SAEs of the page begin with."""

    @property
    def name(self) -> str:
        """The SAE's id less `folder`, as people may read it."""
        return short_name(self.dictionary.sae, self.folder)

    @property
    def short_name(self) -> str:
        """The same for a chart: a long name without its middle."""
        return escape(self.name, SHORT)

    @property
    def tokens_looked_at(self) -> int:
        """Activations whose other codes were looked for."""
        return self.listed.summary.tokens if self.listed.summary else 0


@dataclass
class Gathered:
    """All that a page is made of."""

    saes: list[Audited] = field(default_factory=list)
    """In the order of the files."""
    controls: dict[str, list[Audited]] = field(default_factory=dict)
    """SAE → its controls."""
    runs: list[Run] = field(default_factory=list)
    """Each once, as its last record has it."""
    errors: list[ErrorRecord] = field(default_factory=list)
    rules: list[RuleResult] = field(default_factory=list)

    @property
    def scans(self) -> list[Audited]:
        """Those that were scanned."""
        return [audited for audited in self.saes if audited.scanned.summary]

    @property
    def finding_count(self) -> int:
        """Findings in the records, of all SAEs."""
        return sum(len(audited.findings) for audited in self.saes)


class Gatherer:
    """Takes records while they go by.

    Of two scans of an SAE the later one counts. Example: a scan, then a score of the same SAE, in
    one file or two, become one `Audited`.
    """

    def __init__(self) -> None:
        self._audited: dict[str, Audited] = {}
        self._gathered = Gathered()
        self._runs: dict[tuple[str, str], Run] = {}
        self._run: Run | None = None

    def file(self, records: Iterable[Record], where: str) -> None:
        """Take the records of a file.

        Args:
            records: of one run or several.
            where: what errors call the file.

        Raises:
            AuditError: records of an SAE whose dictionary record is not there, or of two different
                files under one name.
        """
        self._run = None
        for record in records:
            if isinstance(record, Run):
                self._run = record
                self._runs[record.command, record.started] = record
            elif isinstance(record, DictionaryRecord):
                self._begin(record, where)
            elif isinstance(record, ErrorRecord):
                self._gathered.errors.append(record)
            elif isinstance(record, Verdict):
                self._gathered.rules += record.rules
            elif (sae := getattr(record, "sae", None)) is not None:
                if sae not in self._audited:
                    raise AuditError(
                        f"has records of {sae}, and no dictionary record of it before them",
                        where=where,
                        hint="a whole file, as scan, mediators or score write it",
                    )
                _take(self._audited[sae], record)

    def end(self) -> Gathered:
        """What has gone by.

        Raises:
            AuditError: nothing was audited.
        """
        gathered = self._gathered
        gathered.runs += self._runs.values()
        for sae, audited in self._audited.items():
            _add_rates(audited)
            control = audited.dictionary.control
            if control is None:
                gathered.saes.append(audited)
            else:
                base = sae.removesuffix(f" ({control})")
                gathered.controls.setdefault(base, []).append(audited)
        if len(gathered.saes) > 1:
            folder = common_folder([audited.dictionary.sae for audited in gathered.saes])
            for audited in self._audited.values():
                audited.folder = folder
        if not gathered.saes:
            raise AuditError("there is no audited SAE in these records", hint=WRITTEN)
        return gathered

    def _begin(self, dictionary: DictionaryRecord, where: str) -> None:
        known = self._audited.get(dictionary.sae)
        if known is None:
            self._audited[dictionary.sae] = Audited(
                dictionary,
                Scanned(dictionary),
                Listed(dictionary),
                Scored(dictionary),
                limits_of(None),
            )
        elif known.dictionary.source.sha256 != dictionary.source.sha256:
            raise AuditError(
                f"{dictionary.sae} is another file here than in the records before",
                where=where,
                hint="a report for each",
            )
        if self._run is not None and self._run.command == "scan":
            audited = self._audited[dictionary.sae]
            audited.dictionary, audited.scanned = dictionary, Scanned(dictionary)
            audited.findings, audited.limits = [], limits_of(self._run)


def gather(files: Iterable[str]) -> Gathered:
    """What the records of several files say together.

    Args:
        files: as typed; "-" for standard input.

    Raises:
        AuditError: a file that cannot be read, or what `Gatherer` refuses.
    """
    gatherer = Gatherer()
    for file in files:
        gatherer.file(read_records(file, "", WRITTEN), file)
    return gatherer.end()


def _take(audited: Audited, record: Record) -> None:
    if isinstance(record, Finding):
        audited.findings.append(record)
    if isinstance(record, Finding | ClaimRecord | ScanSummary):
        audited.scanned.add(record)
    elif isinstance(record, MediatorRecord):
        audited.listed.add(record)
        _read(audited, record)
    elif isinstance(record, TokenRecord):
        _read(audited, record)
    elif isinstance(record, FiringRecord):
        known = audited.firing.get(record.features)
        if known is None or _counts_more(record) >= _counts_more(known):
            audited.firing[record.features] = record
    elif isinstance(record, MediatorsSummary):
        before = audited.listed.summary
        if before is None or record.tokens > before.tokens:
            audited.listed.summary = record
    elif isinstance(record, ChoiceRecord):
        audited.choices[record.token, record.features] = record
        _read(audited, record)
    elif isinstance(record, ScoreSummary):
        scored = audited.scored.summary
        if scored is None or record.choices > scored.choices:
            audited.scored.summary = record


def _add_rates(audited: Audited) -> None:
    """Give findings without firing rates those that were counted."""
    rates = {
        feature: rate
        for record in audited.firing.values()
        for feature, rate in zip(record.features, record.rates, strict=False)
    }
    audited.findings = [
        replace(finding, firing_rates=tuple(map(rates.get, finding.features)))
        if finding.firing_rates is None and not rates.keys().isdisjoint(finding.features)
        else finding
        for finding in audited.findings
    ]


def _counts_more(record: FiringRecord) -> tuple[int, bool]:
    return record.tokens, record.typical is not None and record.typical.bits is not None


def _read(audited: Audited, record: MediatorRecord | TokenRecord | ChoiceRecord) -> None:
    if record.token is not None and record.text is not None:
        audited.tokens[record.token] = record.text
