package images

import (
	"crypto/sha256"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

const root = "../.."

// programs are those that have an image.
var programs = []string{"opennebula-cloud-controller-manager", "onelb-node"}

var (
	archives = flag.String("archives", "", "directory with the archives of make images, to be looked at too")
	arches   = flag.String("arches", "amd64 arm64", "architectures that they are for")
	again    = flag.String("again", "", "directory with the archives of a second build, which has to be the same")
)

// stamp is the version of a commit without a tag.
const stamp = "6587085-dirty"

// flags are those with which `make build` calls the go command for that version.
func flags(t *testing.T) []string {
	t.Helper()
	c := exec.CommandContext(t.Context(), "make", "-s", "-n", "build", "VERSION="+stamp)
	c.Dir, c.Env = root, append(os.Environ(), "MAKEFLAGS=", "MFLAGS=")
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("make -n build: %v\n%s", err, out)
	}
	ldflags := regexp.MustCompile(`-ldflags '([^']+)'`).FindSubmatch(out)
	if ldflags == nil {
		t.Fatalf("make -n build shows no -ldflags:\n%s", out)
	}
	return []string{"-trimpath", "-buildvcs=false", "-tags=grpcnotrace", "-ldflags", string(ldflags[1])}
}

// build builds a program as the Makefile does, from the sources below a directory.
func build(t *testing.T, from, program string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), program)
	args := append(append([]string{"build"}, flags(t)...), "-o", out, "./cmd/"+program)
	c := exec.CommandContext(t.Context(), "go", args...)
	c.Dir, c.Env = from, append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=") // also under the race detector
	if text, err := c.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", program, err, text)
	}
	return out
}

// containerfile is what one says, of the few things that ours may say.
type containerfile struct {
	from, user, entrypoint string
	copies                 map[string]string
}

var quoted = regexp.MustCompile(`^\["([^"]+)"\]$`)

func parse(t *testing.T, program string) containerfile {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "manifests/images/Containerfile."+program))
	if err != nil {
		t.Fatal(err)
	}
	f := containerfile{copies: map[string]string{}}
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		switch {
		case words[0] == "FROM" && len(words) == 2:
			f.from = words[1]
		case words[0] == "USER" && len(words) == 2:
			f.user = words[1]
		case words[0] == "COPY" && len(words) == 3:
			f.copies[words[1]] = words[2]
		case words[0] == "ENTRYPOINT" && len(words) == 2 && quoted.MatchString(words[1]):
			f.entrypoint = quoted.FindStringSubmatch(words[1])[1]
		default:
			t.Fatalf("Containerfile.%s: %q is not what this test knows", program, line)
		}
	}
	return f
}

// version runs an entry point in a root of its own, and returns what it prints.
func version(t *testing.T, dir, user, entrypoint string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("chroot needs root: make test runs this")
	}
	var ids [2]uint32
	for i, text := range strings.SplitN(user, ":", 2) {
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			t.Fatalf("USER %s: numbers need no /etc/passwd: %v", user, err)
		}
		ids[i] = uint32(n)
	}
	for d := dir; d != filepath.Dir(d); d = filepath.Dir(d) { // for that user
		if info, err := os.Stat(d); err == nil && info.Mode().Perm()&0o001 == 0 {
			if err := os.Chmod(d, info.Mode().Perm()|0o011); err != nil {
				t.Fatal(err)
			}
		}
	}
	c := exec.CommandContext(t.Context(), entrypoint, "--version")
	c.Dir, c.Env = "/", []string{}
	c.SysProcAttr = &syscall.SysProcAttr{Chroot: dir, Credential: &syscall.Credential{Uid: ids[0], Gid: ids[1]}}
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%s --version: %v\n%s", entrypoint, err, out)
	}
	return string(out)
}

// TestProgramsRunInTheirImages: static, and in need of no file that is not copied.
func TestProgramsRunInTheirImages(t *testing.T) {
	for _, program := range programs {
		t.Run(program, func(t *testing.T) {
			f := parse(t, program)
			if f.from != "scratch" || f.entrypoint != "/"+program || f.copies[program] != f.entrypoint {
				t.Fatalf("%+v", f)
			}
			dir := t.TempDir()
			copyFile(t, build(t, root, program), filepath.Join(dir, f.entrypoint))
			if got := version(t, dir, f.user, f.entrypoint); !strings.Contains(got, stamp) {
				t.Errorf("it says %q", got)
			}
		})
	}
}

// TestBuildsDoNotDependOnTheirPlace: the same sources elsewhere give the same bytes.
func TestBuildsDoNotDependOnTheirPlace(t *testing.T) {
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	for _, dir := range []string{"api", "cmd", "ipam", "loadbalancer", "provider", "manifests"} {
		if err := os.CopyFS(filepath.Join(elsewhere, dir), os.DirFS(filepath.Join(root, dir))); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"go.mod", "go.sum"} {
		copyFile(t, filepath.Join(root, file), filepath.Join(elsewhere, file))
	}
	here, there := sum(t, build(t, root, "onelb-router")), sum(t, build(t, elsewhere, "onelb-router"))
	if here != there {
		t.Errorf("%s here, %s elsewhere", here, there)
	}
}

// TestArchives looks at what make images made.
func TestArchives(t *testing.T) {
	if *archives == "" {
		t.Skip("no -archives: make images-test builds them and runs this")
	}
	for _, program := range programs {
		f := parse(t, program)
		a, err := openArchive(filepath.Join(*archives, program+".tar"))
		if err != nil {
			t.Fatal(err)
		}
		all, err := a.images()
		if err != nil {
			t.Fatal(err)
		}
		var architectures []string
		for _, i := range all {
			architectures = append(architectures, i.Architecture)
			dir := t.TempDir()
			files, err := a.extract(i, dir)
			if err != nil {
				t.Fatal(err)
			}
			var want []string
			for _, to := range f.copies {
				want = append(want, to)
			}
			slices.Sort(want)
			slices.Sort(files)
			if !slices.Equal(files, want) || i.OS != "linux" || i.Config.User != f.user || !slices.Equal(i.Config.Entrypoint, []string{f.entrypoint}) {
				t.Errorf("%s %s: files %v, %+v", program, i.Architecture, files, i)
			}
			if i.Architecture == runtime.GOARCH {
				t.Log(program, i.Digest, version(t, dir, f.user, f.entrypoint))
			}
		}
		slices.Sort(architectures)
		if want := strings.Fields(*arches); !slices.Equal(architectures, want) {
			t.Errorf("%s is for %v, want %v", program, architectures, want)
		}
		if *again != "" {
			same(t, all, filepath.Join(*again, program+".tar"))
		}
	}
}

// same compares the images of an archive with those of another build.
func same(t *testing.T, all []image, other string) {
	t.Helper()
	a, err := openArchive(other)
	if err != nil {
		t.Fatal(err)
	}
	second, err := a.images()
	if err != nil {
		t.Fatal(err)
	}
	if len(second) != len(all) {
		t.Fatalf("%d images, then %d", len(all), len(second))
	}
	for i := range all {
		if all[i].Digest != second[i].Digest {
			t.Errorf("%s of %s: %s, then %s", other, all[i].Architecture, all[i].Digest, second[i].Digest)
		}
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	info, err := in.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if err := extractFile(in, to, info.Mode().Perm()); err != nil {
		t.Fatal(err)
	}
}

func sum(t *testing.T, name string) string {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}
