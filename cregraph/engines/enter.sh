#!/bin/sh
# Run a task in a container that somebody else made, under the contract of contract.py. Process 1 of the container, as uid 0.
#
# /cregraph/orders (written by inside.py) says what to run. This script makes what is left of the contract, runs the command with its
# output as the one log on stdout, watches its limits and ends all that runs. It exits with 0 if and only if the command did so
# within its limits and wrote nowhere else. Otherwise the last line on stderr is `cregraph-report: …`, which inside.py reads.
# It needs sh, coreutils (env, stat, sort …), GNU find and util-linux (setpriv, taskset, setsid), which every Debian root has.
# shellcheck disable=SC1091,SC2154  # orders sets the variables in lower case

export LC_ALL=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

end() { # end STATUS WORDS…: the answer
    status=$1
    shift
    printf '\ncregraph-report: %s\n' "$*" >&2
    exit "$status"
}
refuse() { end 220 "setup $*"; }

[ "$$ $(id -u)" = "1 0" ] || refuse "it is not the first process of a container, or not uid 0"
[ -r /cregraph/orders ] || refuse "it was not told what to do: /cregraph/orders is missing"
. /cregraph/orders

if [ "${1-}" != inside ]; then
    for program in env find setpriv setsid sleep sort stat taskset touch; do
        command -v $program >/dev/null || refuse "the build root lacks the program $program"
    done
    while read -r name value; do [ "$name" = Cpus_allowed_list: ] && processors=$value; done </proc/self/status
    set --
    for range in $(echo "$processors" | tr , ' '); do
        at=${range%-*}
        while [ "$at" -le "${range#*-}" ]; do set -- "$@" "$at" && at=$((at + 1)); done
    done
    read -r random </proc/sys/kernel/random/uuid
    shift $((0x${random%%-*} % $#))
    # It keeps one capability more than the command, so that the command cannot look into it or change it (ptrace(2)).
    exec setpriv --no-new-privs --inh-caps=-all --bounding-set="-all,+setpcap,$capabilities" taskset -c "$1" \
        env -i /cregraph/enter inside
fi

# ---- the place

own_file_system() { # whether something is mounted at $1
    [ -d "$1" ] && [ "$(stat -c %d "$1")" != "$(stat -c %d /)" ]
}
put() { # put FILE TEXT: a file with this text, and with the one time
    if [ -L "$1" ] || [ "$(cat "$1" 2>/dev/null; echo .)" != "$2." ]; then
        printf %s "$2" 2>/dev/null >"$1" || refuse "it cannot write $1"
        chmod 644 "$1" && touch -d "@$epoch" "$1"
    fi
}
make() { # make FOLDER: with what is missing above it; folders that were there keep their times
    above=${1%/*}
    while [ ! -d "${above:-/}" ]; do above=${above%/*}; done
    was=$(stat -c %y "${above:-/}")
    { rm -rf "$1" && mkdir -p "$1"; } || refuse "it cannot make the folder $1"
    at=$1
    while [ "$at" != "$above" ]; do touch -d "@$epoch" "$at" && at=${at%/*}; done
    touch -d "$was" "${above:-/}"
}

rm /cregraph/enter /cregraph/orders || refuse "it cannot remove itself"
umask "$mask"
[ "$(cat /proc/sys/kernel/hostname)" = "$hostname" ] || refuse "its host name is not $hostname"
[ -e /sys/class/net/lo/flags ] || refuse "it cannot see whether there is a network"
for interface in /sys/class/net/*; do
    read -r flags <"$interface/flags"
    case ${interface##*/} in
    lo) [ $((flags & 1)) = 1 ] || refuse "its loopback interface is not up" ;;
    *) [ $((flags & 1)) = 0 ] || refuse "it is not cut off from the network: ${interface##*/} is up" ;;
    esac
done
for place in /proc /dev /tmp /dev/shm; do own_file_system $place || refuse "$place is not a file system of its own"; done
for place in /tmp /dev/shm; do
    chmod 1777 $place
    [ "$(($(stat -f -c '%b * %S' $place)))" -le $((temporary + 4096)) ] || refuse "there is no limit to $place"
done
[ -n "$terminal" ] || rm -f /dev/core /dev/tty /dev/ptmx /dev/console || refuse "it cannot remove the devices of a terminal"
rm -f /.dockerenv /run/.containerenv
mkdir -p /dev/pts /dev/mqueue && chmod 755 /dev/pts /dev/mqueue
files
make "$output"
case $cwd in "$output"/* | "$work"/* | "$home"/*) [ -d "$cwd" ] || make "$cwd" ;; esac
for place in $timeless; do touch -d "@$epoch" "$place"; done
real=$(cd "$output" && pwd -P) || refuse "it cannot find its output folder $output"
cd "$cwd" || refuse "its folder cannot be entered: $cwd"

# ---- the command

names() { # what is below /, one line each: how it is, and its name. A folder that is as before is no change.
    # shellcheck disable=SC2046,SC2086  # the places are plain names
    set -- -path "$real" -prune $(printf ' -o -path %s -prune' $aside)
    {
        find / -xdev \( "$@" \) -o -type d -printf 'd %p\0' -o -printf '%y.%m.%s.%T@.%C@ %p\0'
        find /dev -xdev -mindepth 1 \( "$@" \) -o -type d -printf 'd %p\0' -o -printf '%y.%m.%i %p\0'
    } 2>/dev/null | tr '\000-\037\177' '\n[?*]' | sort
}
run() { # run PROGRAM…: become the command, started by PROGRAM
    # shellcheck disable=SC3045  # each shell that is /bin/sh somewhere has them; a limit that is lower already stays
    { ulimit -c 0; ulimit -f $((file / 512)); ulimit -d $((memory / 1024)); ulimit -n 4096; ulimit -S -s 8192; } 2>/dev/null
    start setpriv --bounding-set=-setpcap "$@"
}

if [ -n "$terminal" ]; then
    (run) 
    exit
fi
before=$(names)
exec 9<"$(command -v sleep)" # what the command writes to the file of that name does not reach it
(
    exec 9<&- </dev/null 2>&1
    run setsid
) &
command=$!

look() { # whether the command is within its limits; `why` says how it is not
    read -r now _ </proc/uptime
    [ $((${now%.*}${now#*.} - began)) -le $((seconds * 100)) ] || why="it ran longer than $seconds s"
    count=0 pages=0
    for process in /proc/[0-9]*; do
        [ "$process" = /proc/1 ] || count=$((count + 1))
        { [ "$process" = /proc/1 ] || read -r _ resident shared _ <"$process/statm" && pages=$((pages + resident - shared)); } 2>/dev/null
    done
    [ "$count" -le "$processes" ] || why="it had $count processes at once; $processes are allowed"
    held=$((pages * 4096))
    [ "$held" -le "$memory" ] || why="its processes held $((held >> 20)) MiB of memory; $((memory >> 20)) are allowed"
    [ "$(($(stat -f -c '%a * %S' /)))" -ge "$spare" ] ||
        why="less than $((spare >> 20)) MiB were left on the file system that it writes to"
    [ -z "$why" ]
}
why=
read -r began _ </proc/uptime
began=${began%.*}${began#*.}
while /proc/self/fd/9 0.2 && kill -0 $command 2>/dev/null && look; do :; done
[ -z "$why" ] && wait $command
status=$?
while set -- /proc/[0-9]* && [ $# -gt 1 ]; do kill -KILL -1 && /proc/self/fd/9 0.01; done # the sleep reaps, too

[ -z "$why" ] || end 201 "end $why"
[ $status = 0 ] || end $status "exit $status"
changes=$(names | comm -3 /proc/self/fd/3 - 3<<END
$before
END
)
[ -z "$changes" ] || end 210 "changes
$(printf %s "$changes" | head -c 60000)"
{ [ -d "$output" ] && [ ! -L "$output" ]; } || end 211 gone
odd=$(find "$real" ! -type f ! -type d ! -type l -printf '%y %P\n' | tr '\000-\011\013-\037\177' '[?*]' | sort | head -n 1)
[ -z "$odd" ] || end 212 "odd $odd"
