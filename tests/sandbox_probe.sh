# What a command sees and may do in a sandbox, each answer a file in $OUT. tests/test_conformance.py compares them between engines.

see() { # see NAME COMMAND…: what it prints, and how it ends
    local name=$1
    shift
    { "$@"; echo "status $?"; } > "$OUT/$name" 2>&1
}
may() { # may NAME COMMAND…: whether it works, and in what words not
    local name=$1 said
    shift
    if said=$("$@" 2>&1); then said=works; fi
    echo "$name: ${said##*: }" >> "$OUT/may"
}

words() { # the environment as the kernel has it
    local all
    mapfile -d '' all < /proc/self/environ
    printf '%s\n' "${all[@]}"
}
status_of() { while read -r line; do case $line in $1*) echo "$line" ;; esac; done < /proc/self/status; }
interfaces() { # those that are there in every new network namespace of a kernel are down, and their number is the kernel's business
    while IFS=': ' read -r name rest; do case $name in lo) echo "$name" ;; eth*|en*|wl*|docker*|veth*) echo "$name" ;; esac; done < /proc/net/dev
}
processes() { for each in /proc/[0-9]*; do echo "${each#/proc/}"; done | { mapfile -t all; echo "from ${all[0]}, and few: $(( ${#all[@]} < 8 ))"; }; }
descriptors() { (cd /proc/$$/fd && echo *); readlink /proc/$$/fd/0; [[ /proc/$$/fd/1 -ef /proc/$$/fd/2 ]] && echo "one log"; }
session() { read -r -a all < /proc/$$/stat; echo "group $((all[4] == all[0])) session $((all[5] == all[0])) terminal ${all[6]}"; }
masked() { for each in kcore timer_list keys sched_debug; do head -c 64 "/proc/$each" 2> /dev/null; done; ls -A /proc/acpi /proc/scsi 2> /dev/null | sort -u; }
limits() { for which in c d f n; do echo "$which $(ulimit -S "-$which") $(ulimit -H "-$which")"; done; echo "s $(ulimit -S -s)"; }
room() { df_of=$(stat -f -c '%b %S' "$1"); echo "$1 $(( ${df_of% *} * ${df_of#* } ))"; }
first() { local all; IFS= read -r -d '' all < /proc/1/cmdline; echo "$all"; }
append() { echo x >> "$1"; }
connect() { exec 3<> "$1"; }
raise() { ulimit "$1" "$2"; }

before=$(stat -c '%n %F %a %Y %u:%g %N' / /bin /cregraph /cregraph/* /cregraph/in/* /etc /etc/* /lib /opt /opt/* /opt/*/* /root \
    /usr /usr/bin /usr/bin/cat 2>&1)
see files echo "$before"
see environment words
see user id -u
see group id -g
see host cat /proc/sys/kernel/hostname /proc/sys/kernel/domainname
see umask umask
see folder pwd
see processors nproc
see descriptors descriptors
see limits limits
see interfaces interfaces
see routes cat /proc/net/route
see capabilities status_of Cap
see privileges status_of NoNewPrivs
see signals status_of Sig[BIC]
see processes processes
see first first
see name cat /proc/1/comm
see first_environment cat /proc/1/environ
see session session
see places ls -A /
see devices stat -c '%n %F %a %t:%T %N' /dev/*
see memory stat -c '%n %F %u:%g %a' /dev /dev/shm /dev/pts /dev/mqueue /tmp /proc
see rooms room /tmp
see rooms_of_memory room /dev/shm
see etc cat /etc/hostname /etc/hosts /etc/resolv.conf /etc/passwd /etc/group
see masked masked
see given cat /cregraph/in/src.txt /opt/env/lib/one /opt/env/lib/needed/DESCRIPTION
see given_files stat -c '%n %F %a %Y %u:%g' /opt/env /opt/env/lib /opt/env/lib/one /opt/env/lib/needed /opt/env/lib/needed/DESCRIPTION

: > "$OUT/mine"
may "give a file away" chown 1000 "$OUT/mine"
may "give a file to itself" chown 0:0 "$OUT/mine"
may "set an id bit" chmod 4755 "$OUT/mine"
rm "$OUT/mine"
may "mount a file system" mount -t tmpfs none /cregraph/home
may "mount a folder" mount --bind /usr /cregraph/home
may "unmount /tmp" umount /tmp
may "make a device" mknod "$OUT/null" c 1 3
may "have another user namespace" unshare --user true
may "be root of another user namespace" unshare --user --map-root-user true
may "have another network" unshare --net true
may "have other mounts" unshare --mount true
may "have another host name" hostname other
may "reach another host" connect /dev/tcp/192.0.2.1/80
may "ask a name server" connect /dev/udp/192.0.2.1/53
may "reach itself" connect /dev/tcp/127.0.0.1/9
may "reach itself in IPv6" connect /dev/tcp/::1/9
may "add an input" append /cregraph/in/more
may "change an input" append /cregraph/in/src.txt
may "remove an input" rm -f /cregraph/in/src.txt
may "open up an input" chmod 777 /cregraph/in/src.txt
may "write where it works" append /cregraph/build/x
may "write at home" append "$HOME/x"
may "write in /tmp" append /tmp/x
may "write in /dev/shm" append /dev/shm/x
may "run from /tmp" eval 'cp /usr/bin/true /tmp/true && /tmp/true'
may "run from /dev/shm" eval 'cp /usr/bin/true /dev/shm/true && /dev/shm/true'
may "turn a switch of the kernel" append /proc/sys/kernel/panic
may "drop the kernel's caches" append /proc/sys/vm/drop_caches
may "ask the kernel to crash" append /proc/sysrq-trigger
may "end the first process" kill -9 1
may "look into the first process" cat /proc/1/mem
may "open more files" raise -n 8192
may "leave a core" raise -c unlimited
may "write larger files" raise -f unlimited
may "make a pipe" eval 'mkfifo /cregraph/build/pipe'
