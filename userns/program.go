package userns

import (
	"errors"
	"fmt"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Program is what a new process does between clone(2) and its exec: system
// calls prepared in advance, and nothing else. The child of a clone in a Go
// process has no runtime, so it can neither allocate nor lock; and with no
// runtime to start, no second exec is needed to enter a container.
//
// Steps run in order. The first that fails ends the child and is what Start,
// or later Process.Wait, reports, unless the step says otherwise.
type Program struct {
	steps []step
	names []string       // what each step does, for errors
	keep  [][]byte       // strings the steps point into
	ptrs  [][]*byte      // argument vectors likewise
	any   []any          // structures likewise
	regs  [nregs]uintptr // results that later steps use as arguments

	waits      bool    // for the parent to release it
	tells      bool    // the parent that it is ready
	forks      bool    // it goes on as another process,
	forksFirst bool    // which waits for the parent
	ownMemory  bool    // it is a copy of its parent
	tid        int32   // a vforked child's pid, as its parent counts
	parent     uintptr // the parent's end of the socket, which the child must not hold
	files      []int   // descriptors to place
	first      int     // the number of the first
	filesAt    int     // the first of the steps that place them
	shared     []byte  // a failure, for who may be kept from sending it
}

const (
	nregs   = 8
	noReg   = -1
	maxArgs = 6
)

// Reg names one of a Program's registers: the result of one step, an argument
// of another. Before it is set it holds ^0.
type Reg int

type stepKind uint8

const (
	kindCall stepKind = iota
	kindFork          // clone again; the first process exits
	kindFail          // end with the errno remembered, else with ENOENT
)

// A step is one system call.
type step struct {
	nr       uintptr
	args     [maxArgs]uintptr
	regs     uint8 // bit i: args[i] is the number of a register
	kind     stepKind
	save     int8          // register for the result, or noReg
	skipIf0  int8          // the step is passed over if this register is 0
	min      uintptr       // a smaller result fails with EPIPE
	ignore   bool          // any failure is passed over
	pass     [4]unix.Errno // these failures are passed over
	remember [2]unix.Errno // these too, but kindFail ends with them
	onError  int           // step to go on with after any failure, if not 0
	onOK     int           // step to go on with after success, if not 0
}

// A StepError says which step of a Program failed, and how.
type StepError struct {
	Step string
	Err  unix.Errno
}

func (e *StepError) Error() string { return e.Step + ": " + e.Err.Error() }
func (e *StepError) Unwrap() error { return e.Err }

// NewProgram returns a program of no steps.
func NewProgram() *Program {
	p := &Program{}
	for i := range p.regs {
		p.regs[i] = ^uintptr(0)
	}
	return p
}

// Str keeps s for the child and returns its address, NUL-terminated.
func (p *Program) Str(s string) uintptr {
	b := make([]byte, len(s)+1)
	copy(b, s)
	p.keep = append(p.keep, b)
	return uintptr(unsafe.Pointer(&b[0]))
}

// Bytes keeps b for the child, which may read or write it, and returns its address.
func (p *Program) Bytes(b []byte) uintptr {
	p.keep = append(p.keep, b)
	return uintptr(unsafe.Pointer(&b[0]))
}

// Strs keeps a NULL-terminated vector of strings, as execve(2) takes it.
func (p *Program) Strs(list []string) uintptr {
	v := make([]*byte, len(list)+1)
	for i, s := range list {
		b := make([]byte, len(s)+1)
		copy(b, s)
		v[i] = &b[0]
	}
	p.ptrs = append(p.ptrs, v)
	return uintptr(unsafe.Pointer(&v[0]))
}

// Ref keeps v, a pointer, for the child and returns its address.
func Ref[T any](p *Program, v *T) uintptr {
	p.any = append(p.any, v)
	return uintptr(unsafe.Pointer(v))
}

// A StepRef changes how the step just added is taken.
type StepRef struct {
	p *Program
	i int
}

func (p *Program) add(name string, s step) StepRef {
	p.steps = append(p.steps, s)
	p.names = append(p.names, name)
	return StepRef{p, len(p.steps) - 1}
}

// Call adds the system call nr. An argument of type Reg stands for the result
// of an earlier step; any other is a uintptr.
func (p *Program) Call(name string, nr uintptr, args ...any) StepRef {
	s := step{nr: nr, save: noReg, skipIf0: noReg}
	for i, a := range args {
		switch a := a.(type) {
		case Reg:
			s.regs |= 1 << i
			s.args[i] = uintptr(a)
		case uintptr:
			s.args[i] = a
		case int:
			s.args[i] = uintptr(a)
		default:
			panic(fmt.Sprintf("userns: argument %d of %s is a %T", i, name, a))
		}
	}
	return p.add(name, s)
}

// Fork clones again with flags; the steps that follow are the new process's,
// the old one exits. With CLONE_PARENT both have the same parent.
func (p *Program) Fork(name string, flags uintptr) StepRef {
	p.forks = true
	return p.add(name, step{kind: kindFork, args: [maxArgs]uintptr{flags}, save: noReg, skipIf0: noReg})
}

// Note adds a step that tells the parent n: Child.Notes will hold it.
func (p *Program) Note(n byte) {
	p.Call("tell the parent", unix.SYS_SENDTO, toParent, p.Bytes([]byte{n, 0}), 2, unix.MSG_NOSIGNAL, 0, 0)
}

// Fail ends the child with the failure last remembered, else with ENOENT.
func (p *Program) Fail(name string) {
	p.add(name, step{kind: kindFail, save: noReg, skipIf0: noReg})
}

func (r StepRef) step() *step { return &r.p.steps[r.i] }

// Save puts the result into reg.
func (r StepRef) Save(reg Reg) StepRef { r.step().save = int8(reg); return r }

// SkipIf0 passes the step over if reg holds 0.
func (r StepRef) SkipIf0(reg Reg) StepRef { r.step().skipIf0 = int8(reg); return r }

// Min makes any result below n a failure: a read(2) that met end of file.
func (r StepRef) Min(n int) StepRef { r.step().min = uintptr(n); return r }

// Ignore goes on whatever the step returns.
func (r StepRef) Ignore() StepRef { r.step().ignore = true; return r }

// Pass goes on if the step fails with one of errs, at most four.
func (r StepRef) Pass(errs ...unix.Errno) StepRef { copy(r.step().pass[:], errs); return r }

// Remember is Pass, but Fail will end with the failure.
func (r StepRef) Remember(errs ...unix.Errno) StepRef { copy(r.step().remember[:], errs); return r }

// Else makes any failure of the step go on with alternative's steps; success passes them over.
func (r StepRef) Else(alternative func()) {
	i, first := r.i, len(r.p.steps)
	r.p.steps[i].onError = first
	alternative()
	r.p.steps[i].onOK = len(r.p.steps)
}

// MayBeSilenced says that a step may keep the child from telling of its failure,
// as a seccomp filter can that forbids all system calls: it leaves it in memory
// that it shares with its parent.
func (p *Program) MayBeSilenced() {
	p.shared, _ = unix.Mmap(-1, 0, int(unsafe.Sizeof(failure{})), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
}

// Name of step i, for errors.
func (p *Program) Name(i int) string {
	if i < 0 || i >= len(p.names) {
		return "start"
	}
	return p.names[i]
}

// A failure is what a child sends of the step that failed. A byte on its own
// says that it is ready, two are a note, four are a pid: of a vforked child that waits, or what
// a Fork step goes on as.
type failure struct {
	step  int32
	errno int32
}

//go:linkname beforeFork syscall.runtime_BeforeFork
func beforeFork()

//go:linkname afterFork syscall.runtime_AfterFork
func afterFork()

//go:linkname afterForkInChild syscall.runtime_AfterForkInChild
func afterForkInChild()

//go:linkname entersyscallblock runtime.entersyscallblock
func entersyscallblock()

//go:linkname exitsyscall runtime.exitsyscall
func exitsyscall()

// start clones with flags and runs p in the child. If vforked it returns when
// the child has become its program, or ended.
func (p *Program) start(flags uintptr, cgroup int, vforked bool) (pid int, err error) {
	if len(p.steps) == 0 {
		return 0, errors.New("userns: an empty program")
	}
	args := cloneArgs{flags: uint64(flags), exitSignal: uint64(unix.SIGCHLD)}
	if cgroup >= 0 {
		args.flags |= unix.CLONE_INTO_CGROUP
		args.cgroup = uint64(cgroup)
	}
	if vforked {
		args.flags |= unix.CLONE_VM | unix.CLONE_VFORK | unix.CLONE_PARENT_SETTID
		args.parentTID = uint64(uintptr(unsafe.Pointer(&p.tid)))
	}
	syscall.ForkLock.Lock()
	r, errno := p.clone(&args, vforked)
	syscall.ForkLock.Unlock()
	runtime.KeepAlive(p)
	if errno != 0 {
		return 0, errno
	}
	return int(r), nil
}

// cloneArgs is struct clone_args of clone(2), as of Linux 5.7.
type cloneArgs struct {
	flags, pidFD, childTID, parentTID, exitSignal, stack, stackSize, tls, setTID, setTIDSize, cgroup uint64
}

// clone makes the child. Everything after beforeFork in the child is free of
// calls into the Go runtime: RawSyscall6 is assembly, and loops allocate
// nothing. A child of vfork has the parent's stack and memory: it must not
// return, and the parent's part is over in this frame. See
// syscall.forkAndExecInChild1 for the same rules.
//
//go:noinline
//go:norace
//go:nocheckptr
func (p *Program) clone(ca *cloneArgs, vforked bool) (pid uintptr, err unix.Errno) {
	var (
		i      int
		s      *step
		a      [maxArgs]uintptr
		j      int
		r1     uintptr
		e      syscall.Errno
		kept   syscall.Errno
		f      failure
		steps  = p.steps
		passed bool
		errno  uintptr

		nowhere *failure
	)
	if vforked {
		entersyscallblock() // others may run meanwhile
		beforeFork()
		if ca.flags&unix.CLONE_INTO_CGROUP != 0 {
			r1, errno = vfork(unix.SYS_CLONE3, uintptr(unsafe.Pointer(ca)), unsafe.Sizeof(*ca), 0)
		} else {
			r1, errno = vfork(unix.SYS_CLONE, uintptr(ca.flags|ca.exitSignal), 0, uintptr(unsafe.Pointer(&p.tid)))
		}
		e = syscall.Errno(errno)
	} else {
		beforeFork()
		if ca.flags&unix.CLONE_INTO_CGROUP != 0 {
			r1, _, e = syscall.RawSyscall6(unix.SYS_CLONE3, uintptr(unsafe.Pointer(ca)), unsafe.Sizeof(*ca), 0, 0, 0, 0)
		} else {
			r1, _, e = syscall.RawSyscall6(unix.SYS_CLONE, uintptr(ca.flags|ca.exitSignal), 0, 0, 0, 0, 0)
		}
	}
	if e != 0 || r1 != 0 {
		afterFork()
		if vforked {
			exitsyscall()
		}
		return r1, e
	}

	afterForkInChild()
	syscall.RawSyscall(unix.SYS_CLOSE, p.parent, 0, 0)
	if vforked && p.waits {
		syscall.RawSyscall6(unix.SYS_SENDTO, p.regs[toParent], uintptr(unsafe.Pointer(&p.tid)), unsafe.Sizeof(p.tid), unix.MSG_NOSIGNAL, 0, 0)
	}
	for i = 0; i < len(steps); i++ {
		s = &steps[i]
		if s.skipIf0 != noReg && p.regs[s.skipIf0] == 0 {
			continue
		}
		for j = 0; j < maxArgs; j++ {
			a[j] = s.args[j]
			if s.regs&(1<<j) != 0 {
				a[j] = p.regs[a[j]]
			}
		}
		switch s.kind {
		case kindFork:
			r1, _, e = syscall.RawSyscall6(unix.SYS_CLONE, a[0]|uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
			if e == 0 && r1 != 0 {
				f.step = int32(r1)
				syscall.RawSyscall6(unix.SYS_SENDTO, p.regs[toParent], uintptr(unsafe.Pointer(&f)), unsafe.Sizeof(f.step), unix.MSG_NOSIGNAL, 0, 0)
				syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
			}
		case kindFail:
			e = kept
			if e == 0 {
				e = syscall.ENOENT
			}
		default:
			r1, _, e = syscall.RawSyscall6(s.nr, a[0], a[1], a[2], a[3], a[4], a[5])
		}
		if e == 0 && r1 < s.min {
			e = syscall.EPIPE
		}
		if e == 0 {
			if s.save != noReg {
				p.regs[s.save] = r1
			}
			if s.onOK != 0 {
				i = s.onOK - 1
			}
			continue
		}
		if s.onError != 0 {
			i = s.onError - 1
			continue
		}
		passed = s.ignore
		for j = 0; j < len(s.pass); j++ {
			passed = passed || e == s.pass[j]
		}
		for j = 0; j < len(s.remember); j++ {
			if e == s.remember[j] {
				passed, kept = true, e
			}
		}
		if passed {
			continue
		}
		f.step, f.errno = int32(i), int32(e)
		if len(p.shared) > 0 {
			*(*failure)(unsafe.Pointer(&p.shared[0])) = f
		}
		_, _, e = syscall.RawSyscall6(unix.SYS_SENDTO, p.regs[toParent], uintptr(unsafe.Pointer(&f)), unsafe.Sizeof(f), unix.MSG_NOSIGNAL, 0, 0)
		if e != 0 {
			syscall.RawSyscall(unix.SYS_WRITE, p.regs[toParent], uintptr(unsafe.Pointer(&f)), unsafe.Sizeof(f))
		}
		break
	}
	syscall.RawSyscall(unix.SYS_EXIT_GROUP, 127, 0, 0)
	syscall.RawSyscall(unix.SYS_EXIT, 127, 0, 0)
	for {
		nowhere.step = 1 // SIGSEGV, which no filter keeps from ending it
	}
}
