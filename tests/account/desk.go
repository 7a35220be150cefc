package account

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
)

// Desk is where an account works with rbox: a home, data and run-time folder
// that nothing else uses, and a clean environment that names them.
type Desk struct {
	Who  Account
	Dir  string // holds the folders
	Home string // $HOME
	Root string // $RBOX_ROOT; rbox makes it
	Run  string // $RBOX_RUNTIME
	Env  []string
}

// NewDesk makes the folder dir, which should be short, for it holds sockets.
func NewDesk(dir string, who Account) (*Desk, error) {
	d := &Desk{
		Who: who, Dir: dir,
		Home: filepath.Join(dir, "home"), Root: filepath.Join(dir, "root"), Run: filepath.Join(dir, "run"),
	}
	for _, sub := range []string{d.Dir, d.Home, d.Run} {
		if err := os.Mkdir(sub, 0o700); err != nil {
			return nil, err
		}
		if err := os.Lchown(sub, int(who.UID), int(who.GID)); err != nil {
			return nil, err
		}
	}
	d.Env = []string{
		"HOME=" + d.Home, "USER=" + who.Name, "LOGNAME=" + who.Name,
		"PATH=/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin",
		"LANG=C.UTF-8", "TERM=xterm",
		"RBOX_ROOT=" + d.Root, "RBOX_RUNTIME=" + d.Run, "RBOX_KEEPER_IDLE=500ms",
	}
	return d, nil
}

// Command is a program that runs as the desk's account in its home.
func (d *Desk) Command(prog string, args ...string) *exec.Cmd {
	cmd := exec.Command(prog, args...)
	cmd.Env, cmd.Dir = slices.Clone(d.Env), d.Home
	cmd.SysProcAttr = d.Who.Become(nil)
	return cmd
}

// CopyBinary copies rbox, built in the repository top, into dir, since an
// account may be unable to reach the repository, say below /root.
func CopyBinary(top, dir string) (path string, err error) {
	path = filepath.Join(dir, "rbox")
	data, err := os.ReadFile(filepath.Join(top, "bin", "rbox"))
	if errors.Is(err, os.ErrNotExist) {
		return "", errors.New("bin/rbox is not built: run make")
	}
	if err != nil {
		return "", err
	}
	return path, os.WriteFile(path, data, 0o755)
}
