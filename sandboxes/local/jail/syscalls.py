"""System calls by number, and thin ctypes wrappers for those that the standard library lacks."""

from __future__ import annotations

import ctypes
import os
import platform

MACHINE = platform.machine()
AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

# The generic table (include/uapi/asm-generic/unistd.h) is arm64's; x86-64 has its own (arch/x86/entry/syscalls).
_GENERIC = """
io_setup 0 io_destroy 1 io_submit 2 io_cancel 3 io_getevents 4 setxattr 5 getxattr 8 lgetxattr 9 fgetxattr 10
listxattr 11 llistxattr 12 flistxattr 13 getcwd 17 eventfd2
19 epoll_create1 20 epoll_ctl 21 epoll_pwait 22 dup 23 dup3 24 fcntl 25 inotify_init1 26 inotify_add_watch 27
inotify_rm_watch 28 ioctl 29 flock 32 mknodat 33 mkdirat 34 unlinkat 35 symlinkat 36 linkat 37 renameat 38 statfs 43
fstatfs 44 truncate 45 ftruncate 46 fallocate 47 faccessat 48 chdir 49 fchdir 50 fchmod 52 fchmodat 53 fchownat 54
fchown 55 openat 56 close 57 pipe2 59 getdents64 61 lseek 62 read 63 write 64 readv 65 writev 66 pread64 67 pwrite64
68 preadv 69 pwritev 70 sendfile 71 pselect6 72 ppoll 73 signalfd4 74 splice 76 tee 77 readlinkat 78 newfstatat 79
fstat 80 sync 81 fsync 82 fdatasync 83 sync_file_range 84 timerfd_create 85 timerfd_settime 86 timerfd_gettime 87
utimensat 88 capget 90 personality 92 exit 93 exit_group 94 waitid 95 set_tid_address 96 futex 98 set_robust_list 99
get_robust_list 100 nanosleep 101 getitimer 102 setitimer 103 timer_create 107 timer_gettime 108 timer_getoverrun
109 timer_settime 110 timer_delete 111 clock_gettime 113 clock_getres 114 clock_nanosleep 115 sched_getparam 121
sched_getscheduler 120 sched_getaffinity 123 sched_setaffinity 122 sched_yield 124 sched_get_priority_max 125
sched_get_priority_min 126 restart_syscall 128 kill 129 tkill 130 tgkill 131 sigaltstack 132 rt_sigsuspend 133
rt_sigaction 134 rt_sigprocmask 135 rt_sigpending 136 rt_sigtimedwait 137 rt_sigqueueinfo 138 rt_sigreturn 139
getpriority 141 setpriority 140 setpgid 154 getpgid 155 getsid 156 setsid 157 getgroups 158 uname 160 getrlimit 163
setrlimit 164 getrusage 165 umask 166 prctl 167 getcpu 168 gettimeofday 169 getpid 172 getppid 173 getuid 174
geteuid 175 getgid 176 getegid 177 gettid 178 sysinfo 179 socketpair 199 shutdown 210 getsockname 204 getpeername
205 sendto 206 recvfrom 207 setsockopt 208 getsockopt 209 sendmsg 211 recvmsg 212 brk 214 munmap 215 mremap 216
clone 220 execve 221 mmap 222 fadvise64 223 mprotect 226 msync 227 mlock 228 munlock 229 mincore 232 madvise 233
accept4 242 recvmmsg 243 wait4 260 prlimit64 261 sendmmsg 269 renameat2 276 seccomp 277 getrandom 278 memfd_create
279 execveat 281 membarrier 283 mlock2 284 copy_file_range 285 preadv2 286 pwritev2 287 statx 291 rseq 293
pidfd_send_signal 424 pidfd_open 434 clone3 435 close_range 436 openat2 437 faccessat2 439 epoll_pwait2 441
mount_setattr 442 landlock_create_ruleset 444 landlock_add_rule 445 landlock_restrict_self 446 futex_waitv 449
fchmodat2 452 sethostname 161 pivot_root 41 mount 40 umount2 39 unshare 97 capset
91 socket 198
"""

_X86_64 = """
read 0 write 1 open 2 close 3 stat 4 fstat 5 lstat 6 poll 7 lseek 8 mmap 9 mprotect 10 munmap 11 brk 12 rt_sigaction
13 rt_sigprocmask 14 rt_sigreturn 15 ioctl 16 pread64 17 pwrite64 18 readv 19 writev 20 access 21 pipe 22 select 23
sched_yield 24 mremap 25 msync 26 mincore 27 madvise 28 dup 32 dup2 33 pause 34 nanosleep 35 getitimer 36 alarm 37
setitimer 38 getpid 39 sendfile 40 socket 41 sendto 44 recvfrom 45 sendmsg 46 recvmsg 47 shutdown 48 getsockname 51
getpeername 52 socketpair 53 setsockopt 54 getsockopt 55 clone 56 fork 57 vfork 58 execve 59 exit 60 wait4 61 kill
62 uname 63 fcntl 72 flock 73 fsync 74 fdatasync 75 truncate 76 ftruncate 77 getdents 78 getcwd 79 chdir 80 fchdir
81 rename 82 mkdir 83 rmdir 84 creat 85 link 86 unlink 87 symlink 88 readlink 89 chmod 90 fchmod 91 chown 92 fchown
93 lchown 94 umask 95 gettimeofday 96 getrlimit 97 getrusage 98 sysinfo 99 times 100 getuid 102 getgid 104 geteuid
107 getegid 108 setpgid 109 getppid 110 getpgrp 111 setsid 112 getgroups 115 getpgid 121 getsid 124 capget 125
capset 126 rt_sigpending 127 rt_sigtimedwait 128 rt_sigqueueinfo 129 rt_sigsuspend 130 sigaltstack 131 utime 132
mknod 133 personality 135 statfs 137 fstatfs 138 getpriority 140 setpriority 141 sched_getparam 143
sched_getscheduler 145 sched_get_priority_max 146 sched_get_priority_min 147 mlock 149 munlock 150 pivot_root 155
prctl 157 arch_prctl 158 setrlimit 160 sync 162 mount 165 umount2 166 gettid 186 getxattr 191
lgetxattr 192 fgetxattr 193 listxattr 194 llistxattr 195 flistxattr 196
getdents64 217 tkill 200 time 201 futex 202 sched_setaffinity 203 sched_getaffinity 204 set_tid_address 218
restart_syscall 219 fadvise64 221 timer_create 222 timer_settime 223 timer_gettime 224 timer_getoverrun 225
timer_delete 226 clock_gettime 228 clock_getres 229 clock_nanosleep 230 exit_group 231 epoll_wait 232 epoll_ctl 233
tgkill 234 utimes 235 waitid 247 inotify_init 253 inotify_add_watch 254 inotify_rm_watch 255 openat 257 mkdirat 258
mknodat 259 fchownat 260 futimesat 261 newfstatat 262 unlinkat 263 renameat 264 linkat 265 symlinkat 266 readlinkat
267 fchmodat 268 faccessat 269 pselect6 270 ppoll 271 unshare 272 set_robust_list 273 get_robust_list 274 splice 275
tee 276 sync_file_range 277 utimensat 280 epoll_pwait 281 signalfd 282 timerfd_create 283 eventfd 284 fallocate 285
timerfd_settime 286 timerfd_gettime 287 accept4 288 signalfd4 289 eventfd2 290 epoll_create1 291 dup3 292 pipe2 293
inotify_init1 294 preadv 295 pwritev 296 recvmmsg 299 prlimit64 302 sendmmsg 307 getcpu 309 renameat2 316 seccomp
317 getrandom 318 memfd_create 319 execveat 322 membarrier 324 mlock2 325 copy_file_range 326 preadv2 327 pwritev2
328 statx 332 rseq 334 pidfd_send_signal 424 pidfd_open 434 clone3 435 close_range 436 openat2 437 faccessat2 439
epoll_pwait2 441 mount_setattr 442 landlock_create_ruleset 444 landlock_add_rule 445 landlock_restrict_self 446
futex_waitv 449 fchmodat2 452 epoll_create 213 sethostname 170
"""


def _table(text: str) -> dict[str, int]:
    words = text.split()
    return dict(zip(words[::2], map(int, words[1::2]), strict=True))


TABLES = {"x86_64": _table(_X86_64), "aarch64": _table(_GENERIC)}
NUMBERS = TABLES.get(MACHINE, {})

# PyDLL keeps the interpreter lock over the call: after a raw clone the child must not have to take it back
_libc = ctypes.PyDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
_prctl = _libc.prctl
_prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]


def call(name: str, *args: int | bytes | None) -> int:
    """The system call `name`; raises `OSError` naming it."""
    given = [ctypes.c_long(a) if isinstance(a, int) else ctypes.c_char_p(a) for a in args]
    result: int = _syscall(ctypes.c_long(NUMBERS[name]), *given)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")
    return result


def prctl(option: int, arg: int = 0) -> int:
    """libc's own, as each session makes some fifty of them."""
    result: int = _prctl(option, arg, 0, 0, 0)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"prctl: {os.strerror(error)}")
    return result
