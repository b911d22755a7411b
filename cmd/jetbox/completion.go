package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

type completionCommand struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// Run prints one line for the shell's start-up file. The answers come from the
// binary itself, so they are never those of another version.
func (c completionCommand) Run(w world) error {
	line := map[string]string{
		"bash": "complete -o default -C 'jetbox complete' jetbox",
		"zsh":  "autoload -U +X bashcompinit && bashcompinit && complete -o default -C 'jetbox complete' jetbox",
		"fish": "complete -c jetbox -a '(COMP_LINE=(commandline -cp) jetbox complete)'",
	}[c.Shell]
	_, err := fmt.Fprintln(w.stdout, line)
	return err
}

// completeCommand is called by the shell with what is typed so far in COMP_LINE.
type completeCommand struct {
	Words []string `arg:"" optional:"" passthrough:"" help:"As bash passes them; not needed."`
}

func (completeCommand) Run(ctx *kong.Context, w world) error {
	words := completions(ctx.Model.Node, newEnvironment(w.environ)["COMP_LINE"])
	_, err := io.WriteString(w.stdout, strings.Join(append(words, ""), "\n"))
	return err
}

// completions are the words that line could go on with.
func completions(verb *kong.Node, line string) []string {
	words := strings.Split(line, " ")
	last := words[len(words)-1]
	for _, word := range words[:len(words)-1] {
		if i := slices.IndexFunc(verb.Children, func(n *kong.Node) bool { return n.Name == word }); i >= 0 {
			verb = verb.Children[i]
		}
	}
	candidates := verbsAndWords(verb)
	if strings.HasPrefix(last, "-") {
		candidates = flagNames(verb)
	}
	return slices.DeleteFunc(candidates, func(c string) bool { return !strings.HasPrefix(c, last) })
}

func verbsAndWords(verb *kong.Node) (list []string) {
	for _, child := range verb.Children {
		if !child.Hidden {
			list = append(list, child.Name)
		}
	}
	for _, arg := range verb.Positional {
		if arg.Enum != "" {
			list = append(list, arg.EnumSlice()...)
		}
	}
	return list
}

func flagNames(verb *kong.Node) (list []string) {
	for _, group := range verb.AllFlags(true) {
		for _, flag := range group {
			list = append(list, "--"+flag.Name)
		}
	}
	return list
}
