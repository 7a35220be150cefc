#include "textflag.h"

// func vfork() (pid, errno uintptr)
// clone(2) with CLONE_VFORK|CLONE_VM|SIGCHLD. The return address stays in the
// link register: the child shares the stack.
TEXT ·vfork(SB),NOSPLIT|NOFRAME,$0-16
	MOVD	$0x4111, R0
	MOVD	$0, R1
	MOVD	$0, R2
	MOVD	$0, R3
	MOVD	$0, R4
	MOVD	$0, R5
	MOVD	$220, R8
	SVC
	CMN	$4095, R0
	BCC	ok
	MOVD	$-1, R4
	MOVD	R4, pid+0(FP)
	NEG	R0, R0
	MOVD	R0, errno+8(FP)
	RET
ok:
	MOVD	R0, pid+0(FP)
	MOVD	$0, errno+8(FP)
	RET
