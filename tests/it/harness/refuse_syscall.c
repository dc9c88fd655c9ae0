// Runs a program in which a system call fails with an error: refuse_syscall CALL ERRNO PROGRAM [ARGUMENT]...
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static int number(const char *name) {
  if (!strcmp(name, "splice")) return SYS_splice;
  if (!strcmp(name, "utimensat")) return SYS_utimensat;
  if (!strcmp(name, "pwrite64")) return SYS_pwrite64;
  if (!strcmp(name, "ftruncate")) return SYS_ftruncate;
  if (!strcmp(name, "fchmod")) return SYS_fchmod;
  return -1;
}

int main(int argc, char **argv) {
  if (argc < 4 || number(argv[1]) < 0) return 125;
  struct sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number(argv[1]), 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | atoi(argv[2])),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
      prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) {
    perror("seccomp");
    return 125;
  }
  execv(argv[3], argv + 3);
  perror(argv[3]);
  return 125;
}
