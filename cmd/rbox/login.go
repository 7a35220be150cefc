//go:build !front

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"rbox/rootfs/registry"
)

// credentials returns those of the files that f and the environment name.
func (f registryFlags) credentials(app *App) *registry.Credentials {
	return registry.FindCredentials(f.Authfile, os.Getenv, app.Notice)
}

// client returns a client for registries and this machine's configuration,
// which it obeys.
func (f registryFlags) client(app *App) (*registry.Config, *registry.Client, error) {
	config, err := registry.LoadConfig(os.Getenv)
	if err != nil {
		return nil, nil, err
	}
	return config, registry.New(registry.Options{
		Config:      config,
		Credentials: f.credentials(app),
		TLSVerify:   f.TLSVerify,
		CertDirs:    registry.CertDirs(os.Getenv),
		UserAgent:   "rbox/" + version,
		Warn:        app.Notice,
	}), nil
}

// LoginCmd is `rbox login`.
type LoginCmd struct {
	registryFlags
	Username      string  `short:"u" help:"User name." placeholder:"NAME"`
	Password      *string `short:"p" help:"Password; others may see it in the list of processes." placeholder:"PASSWORD"`
	PasswordStdin bool    `name:"password-stdin" help:"Read the password from stdin."`
	GetLogin      bool    `name:"get-login" help:"Only show who is logged in."`
	Registry      string  `arg:"" optional:"" help:"Registry, or registry/namespace (default docker.io)."`
}

// Run asks for what is missing, has the registry check it, and only then stores it.
func (c *LoginCmd) Run(app *App) error {
	key, err := registry.ParseLogin(c.Registry)
	if err != nil {
		return err
	}
	ctx, stop := interruptible()
	defer stop()
	credentials := c.credentials(app)
	known := credentials.User(ctx, key)
	if c.GetLogin {
		if known == "" {
			return &adviceError{errors.New("not logged in to " + key), "rbox login " + key}
		}
		_, err := fmt.Fprintln(app.Stdout, known)
		return err
	}
	user, password, err := c.ask(ctx, app, key, known)
	if err != nil {
		return orInterrupted(ctx, err)
	}
	_, client, err := c.client(app)
	if err != nil {
		return err
	}
	if err := client.Login(ctx, key, user, password); err != nil {
		return orInterrupted(ctx, err)
	}
	where, err := credentials.Store(ctx, key, user, password)
	if err != nil {
		return err
	}
	if !strings.HasPrefix(where, "docker-credential-") {
		app.Notice("the password is stored, readable by you alone but not encrypted, in " + where)
	}
	_, err = fmt.Fprintln(app.Stdout, "Login Succeeded!")
	return err
}

// ask takes user and password from the flags, from stdin or from the terminal.
func (c *LoginCmd) ask(ctx context.Context, app *App, key, known string) (user, password string, err error) {
	user = c.Username
	switch {
	case c.Password != nil && c.PasswordStdin:
		return "", "", &adviceError{errors.New("--password and --password-stdin exclude each other"), "use --password-stdin alone"}
	case c.PasswordStdin && user == "":
		return "", "", &adviceError{errors.New("--password-stdin needs a user name"), "rbox login --username NAME --password-stdin " + key}
	case c.PasswordStdin:
		password, err = readSecret(os.Stdin)
		return user, password, err
	case c.Password != nil:
		app.Notice("a password on the command line can be seen by others: better use --password-stdin")
	}
	if c.Password != nil && user != "" {
		return user, *c.Password, nil
	}
	if !isTerminal(0) {
		return "", "", &adviceError{errors.New("no terminal to ask for user name and password"),
			"rbox login --username NAME --password-stdin " + key + " <FILE"}
	}
	if user == "" {
		if user, err = prompt(ctx, app.Stderr, "Username", known, readLine); err != nil {
			return "", "", err
		}
	}
	if c.Password != nil {
		return user, *c.Password, nil
	}
	password, err = prompt(ctx, app.Stderr, "Password", "", readHidden)
	return user, password, err
}

// maxSecret is more than any password or token has, in bytes.
const maxSecret = 64 << 10

// readSecret reads a password from r. One line break at its end is not part of it.
func readSecret(r io.Reader) (string, error) {
	raw, err := io.ReadAll(io.LimitReader(r, maxSecret+1))
	if err != nil {
		return "", fmt.Errorf("read the password: %w", err)
	}
	password := strings.TrimSuffix(strings.TrimSuffix(string(raw), "\n"), "\r")
	if password == "" || len(raw) > maxSecret {
		return "", &adviceError{errors.New("stdin holds no password"), "printf %s \"$TOKEN\" | rbox login --username NAME --password-stdin REGISTRY"}
	}
	return password, nil
}

// prompt asks on w and reads one answer from the terminal. What it finds the
// terminal like, it leaves it like, also when ctx ends.
func prompt(ctx context.Context, w io.Writer, what, preset string, read func() (string, error)) (string, error) {
	before, err := term.GetState(0)
	if err != nil {
		return "", err
	}
	if preset != "" {
		what += " (" + preset + ")"
	}
	fmt.Fprintf(w, "%s: ", what)
	type answer struct {
		text string
		err  error
	}
	answers := make(chan answer, 1)
	go func() {
		text, err := read()
		answers <- answer{text, err}
	}()
	select {
	case <-ctx.Done():
		term.Restore(0, before)
		fmt.Fprintln(w)
		return "", ctx.Err()
	case a := <-answers:
		if a.err == nil && a.text == "" {
			a.text = preset
		}
		if a.err == nil && a.text == "" {
			a.err = errors.New("nothing was entered")
		}
		return a.text, a.err
	}
}

func readLine() (string, error) {
	// The terminal delivers lines one by one: nothing of the next is lost here.
	line, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if err != nil && line == "" {
		return "", errors.New("nothing was entered")
	}
	return strings.TrimSpace(line), nil
}

func readHidden() (string, error) {
	raw, err := term.ReadPassword(0)
	fmt.Fprintln(os.Stderr) // the user's Enter was not echoed
	return string(raw), err
}
