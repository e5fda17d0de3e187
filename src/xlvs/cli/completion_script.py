# SPDX-License-Identifier: GPL-2.0-only
"""Writes the shells' completion scripts from the commands' own tables.

One engine for both shells, in what they have in common: it takes the words
typed so far, the last being completed, and prints what that may become, a line
each.  What exists is asked with `xlvsadm -Sn`, at the one word that wants it.
"""

from __future__ import annotations

from shlex import quote

from xlvs.cli import ipvsadm_grammar as grammar
from xlvs.cli.command_tree import Command, command_tree, metavar
from xlvs.cli.ipvsadm_parse import SCHEDULER_FLAGS
from xlvs.cli.popt import NO_ARGUMENT, Option
from xlvs.model import SCHEDULERS

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator

_ENGINE = """\
# Completion of xlvs and xlvsadm, written by `xlvs completion`.

# What a word may become whose kind is known; $1 is the kind, the rest all words of the line.
_xlvs_kind() {
    local kind=$1 program=$2
    shift
    case $kind in
        INTERFACE) ls /sys/class/net 2>/dev/null ;;
        FILE) printf '%s\\n' '<file>' ;;
        NOTHING) ;;
        SERVICE) _xlvs_services "$program" "$(_xlvs_service_option "$@")" ;;
        SERVER) _xlvs_servers "$@" ;;
        ONLY-SERVICE)
            "$program" -Sn 2>/dev/null | awk '
                $1 == "-A" { kind = $2 == "-t" ? "tcp:" : $2 == "-u" ? "udp:" : $2 == "-f" ? "fwm:" : "sctp:"
                             print kind $3 }' | sort -u ;;
        ONLY-SERVER)
            "$program" -Sn 2>/dev/null |
                awk '$1 == "-a" { for (i = 4; i < NF; i++) if ($i == "-r") print $(i + 1) }' | sort -u ;;
        *) printf '%s\\n' $kind ;;
    esac
}

# -t for -t, -At and --tcp-service: the option that the word before the last one ends in.
_xlvs_service_option() {
    local before= word
    while [ $# -gt 1 ]; do
        before=$1
        shift
    done
    case $before in
        --tcp-service) echo -t ;;
        --udp-service) echo -u ;;
        --fwmark-service) echo -f ;;
        --*) echo "$before" ;;
        *) echo "-${before#"${before%?}"}" ;;
    esac
}

_xlvs_services() {
    "$1" -Sn 2>/dev/null | awk -v option="$2" '$1 == "-A" && $2 == option { print $3 }' | sort -u
}

# The real servers of the service that the line names.
_xlvs_servers() {
    local program=$1 option= service= before=
    while [ $# -gt 0 ]; do
        case $before in
            --tcp-service | --udp-service | --fwmark-service | --sctp-service | -[!-]*[tuf] | -[tuf])
                option=$(_xlvs_service_option "$before" "$1") service=$1 ;;
        esac
        before=$1
        shift
    done
    [ -n "$service" ] || return 0
    "$program" -Sn 2>/dev/null | awk -v option="$option" -v service="$service" '
        $1 == "-a" && $2 == option && $3 == service {
            for (i = 4; i < NF; i++) if ($i == "-r") print $(i + 1)
        }'
}

_xlvs_candidates() {
    local program=$1
    case ${program##*/} in
        xlvs) _xlvs_of_xlvs "$@" ;;
        *-save) printf '%s\\n' -n ;;
        *-restore) ;;
        *) _xlvs_of_xlvsadm "$@" ;;
    esac
}
"""

_XLVS = """\

_xlvs_of_xlvs() {
    local where=xlvs before= kind= word
    shift
    while [ $# -gt 1 ]; do
        case "$where $1" in
            %(paths)s) where="$where $1" ;;
        esac
        before=$1
        shift
    done
    case "$where $before" in
%(values)s
    esac
    if [ -n "$kind" ]; then
        _xlvs_kind "$kind" xlvs
        return 0
    fi
    case "$where" in
%(words)s
    esac
}
"""

_XLVSADM = """\

_xlvs_of_xlvsadm() {
    local program=$1 command=$2 before= kind= word
    if [ $# -le 2 ]; then
        printf '%%s\\n' %(commands)s
        return 0
    fi
    # The word before the last, and for letters written as one, the letter that takes the value.
    before=$(
        while [ $# -gt 2 ]; do shift; done
        printf '%%s' "$1"
    )
    case $before in
        --*) ;;
        -?*) before=-${before#"${before%%?}"} ;;
    esac
    case $before in
%(values)s
    esac
    if [ -n "$kind" ]; then
        case $kind$command in
            SERVER*-a* | SERVER*--add-server*) return 0 ;; # one that is to be: nobody knows it yet
            SERVICE*-A* | SERVICE*--add-service*) return 0 ;;
        esac
        _xlvs_kind "$kind" "$@"
        return 0
    fi
    case $command in
%(words)s
    esac
}
"""

_BASH = """\

_xlvs_complete() {
    # Words as blanks divide them: bash would divide at colons, too.
    local line=${COMP_LINE:0:COMP_POINT} word cut
    local -a words
    read -ra words <<<"$line"
    case $line in *[[:blank:]]) words+=('') ;; esac
    word=${words[${#words[@]} - 1]}
    COMPREPLY=()
    local candidate
    while IFS= read -r candidate; do
        if [ "$candidate" = '<file>' ]; then
            compopt -o default 2>/dev/null
        elif [[ $candidate = "$word"* ]]; then
            COMPREPLY+=("$candidate")
        fi
    done < <(_xlvs_candidates "${words[@]}")
    # bash replaces what stands after the last colon only.
    case $COMP_WORDBREAKS in *:*)
        cut=${word%"${word##*:}"}
        COMPREPLY=("${COMPREPLY[@]#"$cut"}")
        ;;
    esac
}
complete -F _xlvs_complete xlvs xlvsadm xlvsadm-save xlvsadm-restore
"""

_ZSH = """\

_xlvs_by_sh() {
    emulate -L sh
    _xlvs_candidates "$@"
}
_xlvs() {
    local -a typed found
    typed=("${(@Q)words[1,CURRENT]}")
    found=("${(@f)$(_xlvs_by_sh "${(@)typed}")}")
    if [[ ${found[(Ie)<file>]} -gt 0 ]]; then
        _files
        found=("${(@)found:#<file>}")
    fi
    found=("${(@)found:#}")
    (( ${#found} )) && compadd -- "${found[@]}"
}
if [ "$funcstack[1]" = _xlvs ]; then
    _xlvs "$@" # the first time, loaded out of a folder of $fpath
else
    compdef _xlvs xlvs xlvsadm xlvsadm-save xlvsadm-restore
fi
"""

_OFFERED = {"INTERFACE": "INTERFACE", "FILE": "FILE"}
"""By metavar: the kind of an argument of ``xlvs``."""

_SERVICE_OPTIONS = ("tcp-service", "udp-service", "sctp-service", "fwmark-service")
_NEEDED_FOR = {"ipv6": "service-address", "sort": "nosort"}
"""Options that the grammar takes anywhere: with which other they mean something."""
_KINDS = {
    **dict.fromkeys(_SERVICE_OPTIONS, "SERVICE"),
    "real-server": "SERVER",
    "only-service": "ONLY-SERVICE",
    "only-server": "ONLY-SERVER",
    "scheduler": " ".join(SCHEDULERS),
    "sched-flags": " ".join(SCHEDULER_FLAGS),
    "tun-type": " ".join(grammar.TUNNEL_RULES),
    "pe": "sip",
    "mcast-interface": "INTERFACE",
    "start-daemon": "master backup",
    "stop-daemon": "master backup",
}
"""By long option of xlvsadm: the kind of its value, or the values themselves."""


def script(shell: str) -> str:
    """The script for ``bash`` or ``zsh``."""
    head = "#compdef xlvs xlvsadm xlvsadm-save xlvsadm-restore\n" if shell == "zsh" else ""
    return head + _ENGINE + _for_xlvs() + _for_xlvsadm() + (_ZSH if shell == "zsh" else _BASH)


def _for_xlvs() -> str:
    commands = list(command_tree().walk())
    values = [
        _case([f"{command.name} {text}" for text in action.option_strings], f"kind={quote(kind)}")
        for command in commands
        for action in command.options()
        if (kind := _kind(action))
    ]
    words = [_case([command.name], "; ".join(_offers(command))) for command in commands]
    return _XLVS % {
        "paths": " | ".join(quote(command.name) for command in commands if len(command.words) > 1),
        "values": "\n".join(values),
        "words": "\n".join(words),
    }


def _kind(action: argparse.Action) -> str:
    """The kind of an option's value, empty for an option without one."""
    if not metavar(action):
        return ""
    if action.choices is not None:
        return " ".join(map(str, action.choices))
    return _OFFERED.get(metavar(action), "NOTHING")


def _offers(command: Command) -> Iterator[str]:
    """Shell commands that print what may follow."""
    offered = [one.words[-1] for one in command.commands]
    kinds = []
    for action in command.arguments():
        if action.choices is not None:
            offered += map(str, action.choices)
        elif metavar(action) in _OFFERED:
            kinds.append(_OFFERED[metavar(action)])
    offered += [text for action in command.options() for text in action.option_strings]
    yield "printf '%s\\n' " + " ".join(map(quote, [*offered, "--help"]))
    yield from (f"_xlvs_kind {kind} xlvs" for kind in kinds)


def _for_xlvsadm() -> str:
    options = grammar.OPTIONS.by_name

    def typed(option: Option) -> list[str]:
        letters = [letter for letter, one in grammar.OPTIONS.by_letter.items() if one.name == option.name]
        return [f"--{option.name}", *(f"-{letter}" for letter in letters)]

    values = [
        _case(typed(option), f"kind={quote(_KINDS.get(name, 'NOTHING'))}")
        for name, option in options.items()
        if option.argument != NO_ARGUMENT and name != "persistent"
    ]
    commands = []
    for name, command in grammar.COMMANDS.items():
        rules = grammar.COMMAND_RULES.get(command)
        if rules is None:
            continue
        taken = [
            option
            for long_name, option in options.items()
            if long_name not in grammar.COMMANDS
            and _NEEDED_FOR.get(long_name, grammar.MATRIX_NAMES.get(long_name, long_name)) in rules.permitted
        ]
        patterns = [f"--{name}", *(f"-{x}*" for x, o in grammar.OPTIONS.by_letter.items() if o.name == name)]
        offered = [text for option in taken for text in typed(option)]
        commands.append(_case(patterns, "printf '%s\\n' " + " ".join(offered), glob=True))
    first = [text for name in grammar.COMMANDS for text in typed(options[name])]
    return _XLVSADM % {
        "commands": " ".join(first),
        "values": "\n".join(values),
        "words": "\n".join(commands),
    }


def _case(patterns: Iterable[str], action: str, glob: bool = False) -> str:
    written = " | ".join(pattern if glob else quote(pattern) for pattern in patterns)
    return f"        {written}) {action} ;;"
