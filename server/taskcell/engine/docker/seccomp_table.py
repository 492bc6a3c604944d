"""Which system calls a sandbox may make. Pure.

The base is what the default filters of Docker 20.10.24, Docker 29 and Podman 4.3 all allow to a container without
capabilities, so that this one is weaker than none of them. Sources: github.com/moby/profiles
`seccomp/default_linux.go`, Debian's golang-github-containers-common 0.50.1 `/usr/share/containers/seccomp.json`, and
for 20.10.24 the engine itself, asked call by call. From that base everything is taken that reaches beyond the sandbox
or that hardly any program needs: see `ABSENT` and `FAMILIES`.

A name that an engine's libseccomp does not know is left out by it (runc, crun): that call is refused then.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping, Sequence
from typing import Any

_FILES = """
    access chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2
    fadvise64 fadvise64_64 arm_fadvise64_64 fallocate fchdir fchmod fchmodat fchown fchown32 fchownat fcntl fcntl64
    fdatasync flock fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futimesat getcwd getdents
    getdents64 ioctl lchown lchown32 link linkat _llseek lseek lstat lstat64 mkdir mkdirat mknod mknodat newfstatat open
    openat openat2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv rename
    renameat renameat2 rmdir sendfile sendfile64 splice stat stat64 statfs statfs64 statx symlink symlinkat sync
    sync_file_range sync_file_range2 arm_sync_file_range syncfs tee truncate truncate64 umask unlink unlinkat utime
    utimensat utimensat_time64 utimes write writev
    fgetxattr flistxattr fremovexattr fsetxattr getxattr lgetxattr listxattr llistxattr lremovexattr lsetxattr
    removexattr setxattr
    inotify_add_watch inotify_init inotify_init1 inotify_rm_watch
"""
_EVENTS = """
    epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2 pipe pipe2 poll ppoll
    ppoll_time64 pselect6 pselect6_time64 select _newselect signalfd signalfd4
    timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64
"""
_MEMORY = """
    brk madvise membarrier memfd_create mincore mlock mlock2 mlockall mmap mmap2 mprotect mremap msync munlock
    munlockall munmap process_mrelease remap_file_pages cacheflush
"""
_PROCESSES = """
    arch_prctl breakpoint capget capset execve execveat exit exit_group fork get_robust_list get_thread_area getcpu
    getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getpgid getpgrp getpid getppid getpriority
    getresgid getresgid32 getresuid getresuid32 getrlimit getrusage getsid gettid getuid getuid32 ioprio_get ioprio_set
    pidfd_open prctl prlimit64 restart_syscall rseq set_robust_list set_thread_area set_tid_address set_tls setfsgid
    setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setpgid setpriority setregid setregid32
    setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid setuid setuid32 sysinfo times
    ugetrlimit uname vfork wait4 waitid waitpid
    landlock_add_rule landlock_create_ruleset landlock_restrict_self seccomp
    sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler
    sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler
    sched_yield
"""
_SIGNALS = """
    alarm kill pause pidfd_send_signal rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn
    rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaltstack sigprocmask sigreturn tgkill
    tkill
"""
_TIME = """
    adjtimex clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64
    clock_nanosleep clock_nanosleep_time64 getitimer getrandom gettimeofday nanosleep setitimer time timer_create
    timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64
"""
_MESSAGES = """
    futex futex_time64 ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend
    mq_timedsend_time64 mq_unlink msgctl msgget msgrcv msgsnd semctl semget semop semtimedop semtimedop_time64 shmat
    shmctl shmdt shmget
"""
_SOCKETS = """
    accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg recvmmsg_time64 recvmsg
    send sendmmsg sendmsg sendto setsockopt shutdown
"""
_ABSENT = """
    clone3 io_uring_setup io_uring_enter io_uring_register io_setup io_submit io_cancel io_destroy io_getevents
    io_pgetevents io_pgetevents_time64 add_key keyctl request_key userfaultfd bpf perf_event_open fsconfig fsmount
    fsopen fspick mount_setattr move_mount open_tree fanotify_init fanotify_mark process_madvise process_vm_readv
    process_vm_writev pidfd_getfd kcmp memfd_secret modify_ldt vmsplice name_to_handle_at pkey_alloc pkey_free
    pkey_mprotect get_mempolicy set_mempolicy set_mempolicy_home_node mbind migrate_pages move_pages futex_waitv
    lookup_dcookie quotactl_fd
"""
_PRIVILEGED = """
    acct chroot clock_settime clock_settime64 delete_module finit_module init_module ioperm iopl kexec_file_load
    kexec_load mount open_by_handle_at pivot_root quotactl reboot setdomainname sethostname setns settimeofday stime
    swapoff swapon syslog umount umount2 unshare vhangup
"""
#: What any program may do with any arguments.
ALLOWED = tuple(" ".join((_FILES, _EVENTS, _MEMORY, _PROCESSES, _SIGNALS, _TIME, _MESSAGES, _SOCKETS)).split())
#: What looks as if the kernel did not have it, so that programs do without it as they do on an older kernel:
#: - clone3: its flags lie behind a pointer, which no filter can follow; libc then takes clone, whose flags are seen
#: - io_uring: makes calls that no filter sees; io_setup: the limit of 65536 requests is the whole host's
#: - keyrings, userfaultfd, BPF, perf, new mount calls and tricks with other processes' memory: the ways in of attacks
#: - memfd_secret keeps the host from hibernating; modify_ldt is for programs of 16 bits; vmsplice shares pages
#: - the rest: what one of the three engines refuses, and programs do without
ABSENT = tuple(_ABSENT.split())
#: What is a matter of the host's root, and fails as it does for anybody else.
PRIVILEGED = tuple(_PRIVILEGED.split())
#: Families of sockets: UNIX, INET, INET6. A packet, a virtual machine's host (VSOCK), the kernel's ciphers (ALG) and
#: the like are nobody's need, and asking for a family makes the kernel load its module. Each number is compared whole:
#: the kernel looks at 32 bits of 64, so that "anything but 40" would let 40 + 2**32 pass.
FAMILIES = (1, 2, 10)
#: Of NETLINK, which is 16: ROUTE, SOCK_DIAG, KOBJECT_UEVENT and GENERIC, which `ip`, `ss` and libraries read.
NETLINK, NETLINK_PROTOCOLS, NETLINK_AUDIT = 16, (0, 4, 15, 16), 9
#: New namespaces: CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET (linux/sched.h).
NAMESPACES = 0x7E020000
#: PER_LINUX, PER_LINUX32, each with UNAME26 too, and the question for the current one (linux/personality.h).
PERSONALITIES = (0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
#: x32 has no programs; without it every call of it ends the caller.
_ARCHITECTURES = {"SCMP_ARCH_X86_64": "SCMP_ARCH_X86", "SCMP_ARCH_AARCH64": "SCMP_ARCH_ARM"}
_ALLOW, _ERRNO, _EQUAL = "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_CMP_EQ"


def profile() -> str:
    """The filter as the engine's API takes it: JSON of the kind that `docker run --security-opt seccomp=` reads."""
    known = [{"architecture": own, "subArchitectures": [other]} for own, other in _ARCHITECTURES.items()]
    whole = {
        "defaultAction": _ERRNO,
        # Engines before 23 do not know this key; what is in none of the lists fails with EPERM there.
        "defaultErrnoRet": errno.ENOSYS,
        "archMap": known,
        "syscalls": [*_sockets(), *_calls()],
    }
    return json.dumps(whole, separators=(",", ":"))


def _sockets() -> Sequence[Mapping[str, Any]]:
    audit = (_is(0, NETLINK), _is(2, NETLINK_AUDIT))
    return (
        # For each rule about `socket` libseccomp adds one about the call that 32-bit x86 has for all of sockets, whose
        # family lies behind a pointer. A rule that stands before keeps those out. The price is that 32-bit programs of
        # glibc, which makes no other call there, have no sockets; those of musl have.
        _rule("socketcall", error=errno.EAFNOSUPPORT),
        *(_rule("socket", _is(0, family)) for family in FAMILIES),
        *(_rule("socket", _is(0, NETLINK), _is(2, protocol)) for protocol in NETLINK_PROTOCOLS),
        _rule("socket", *audit, includes={"caps": ["CAP_AUDIT_WRITE"]}),
        # One of the errors that libaudit takes for a kernel without audit: without it `su` and `useradd` give up.
        _rule("socket", *audit, error=errno.EPROTONOSUPPORT, excludes={"caps": ["CAP_AUDIT_WRITE"]}),
        _rule("socket", {"index": 0, "value": NETLINK, "op": "SCMP_CMP_GT"}, error=errno.EAFNOSUPPORT),
        _rule("socketpair", _is(0, 1)),
    )


def _calls() -> Sequence[Mapping[str, Any]]:
    return (
        _rule(ALLOWED),
        # Older kernels let a tracer change a call after the filter has seen it.
        _rule("ptrace", includes={"minKernel": "4.8"}),
        _rule("clone", {"index": 0, "value": NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}),
        *(_rule("personality", _is(0, value)) for value in PERSONALITIES),
        _rule(ABSENT, error=errno.ENOSYS),
        _rule(PRIVILEGED, error=errno.EPERM),
    )


def _rule(
    names: str | Sequence[str], *conditions: Mapping[str, Any], error: int | None = None, **when: Any
) -> Mapping[str, Any]:
    """All conditions must hold. Without `error` the call is allowed."""
    rule = {"names": [names] if isinstance(names, str) else list(names), "args": list(conditions), **when}
    return rule | ({"action": _ALLOW} if error is None else {"action": _ERRNO, "errnoRet": error})


def _is(index: int, value: int) -> Mapping[str, Any]:
    return {"index": index, "value": value, "op": _EQUAL}
