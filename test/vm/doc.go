// Package vm runs a program in a virtual machine with Debian's cloud kernel, for
// what the kernel of the machine at hand cannot do. The machine has no disk and no
// network: its whole file system is an archive in memory, made of files of this
// machine and of unpacked Debian packages. Nothing is installed.
//
// Run returns when the program has ended and the machine is off. The emulator dies
// with the process that called Run, also when that is killed, and the archive has no
// name in the file system, so nothing is left of a run that was interrupted.
//
// The program is one binary that is also process 1 of the machine, see Init.
// QEMU emulates the processors, so that it works inside virtual machines too: the
// machine is some ten times slower than its host. It takes gigabytes of memory.
package vm
