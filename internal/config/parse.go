package config

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"io"
	"iter"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// decoder fills a struct from YAML. The library's own decoder reports an unknown
// key or a wrong value in its words, and without a column; this one knows what
// was meant.
type decoder struct {
	file string
	errs []error
}

func parse(file string, text []byte) (File, error) {
	d := &decoder{file: file}
	var f File
	if root := d.document(text); root != nil {
		d.decode(root, reflect.ValueOf(&f).Elem())
	}
	if len(d.errs) == 0 {
		for _, err := range f.validateStreams() {
			d.errs = append(d.errs, fmt.Errorf("%s: %w", file, err))
		}
		for _, h := range f.Worker.Handlers {
			d.errs = append(d.errs, h.validate()...)
		}
		d.errs = append(d.errs, f.strangers(file)...)
	}
	return f, errors.Join(d.errs...)
}

// document returns what the only document of text holds, nil where that is nothing.
func (d *decoder) document(text []byte) *yaml.Node {
	loader, err := yaml.NewLoader(bytes.NewReader(text))
	if err != nil {
		d.syntax(err)
		return nil
	}
	var first, second yaml.Node
	if err := loader.Load(&first); err != nil {
		d.syntax(err)
		return nil
	}
	if err := loader.Load(&second); err != nil {
		d.syntax(err)
	} else {
		d.fail(&second, "a second document: keep one")
	}
	return first.Content[0]
}

// syntax notes what is no YAML. The end of the text is no mistake.
func (d *decoder) syntax(err error) {
	e, ok := errors.AsType[*yaml.LoadError](err)
	switch {
	case errors.Is(err, io.EOF):
	case ok && e.Mark.Line > 0:
		d.errs = append(d.errs, fmt.Errorf("%s:%d:%d: %s", d.file, e.Mark.Line, e.Mark.Column, e.Message))
	default:
		d.errs = append(d.errs, fmt.Errorf("%s: %w", d.file, err))
	}
}

func (d *decoder) fail(n *yaml.Node, format string, args ...any) {
	d.errs = append(d.errs, fmt.Errorf("%s: %s", d.place(n), fmt.Sprintf(format, args...)))
}

func (d *decoder) place(n *yaml.Node) string {
	return fmt.Sprintf("%s:%d:%d", d.file, n.Line, n.Column)
}

// located wants to know where the file has it.
type located interface{ foundAt(place string) }

func (d *decoder) decode(n *yaml.Node, dst reflect.Value) {
	_, isText := dst.Addr().Interface().(encoding.TextUnmarshaler)
	switch {
	case n.Kind == yaml.AliasNode:
		d.fail(n, "an alias: write the value out")
	case n.ShortTag() == "!!null":
		// A key without a value is a key left out.
	case isText:
		d.scalar(n, dst)
	case dst.Kind() == reflect.Struct:
		d.mapping(n, dst)
	case dst.Kind() == reflect.Map:
		d.table(n, dst)
	case dst.Kind() == reflect.Slice:
		d.sequence(n, dst)
	default:
		d.scalar(n, dst)
	}
}

func (d *decoder) mapping(n *yaml.Node, dst reflect.Value) {
	if n.Kind != yaml.MappingNode {
		d.fail(n, "need keys and values: %s", strings.Join(keys(dst.Type()), ", "))
		return
	}
	if l, ok := dst.Addr().Interface().(located); ok && len(n.Content) > 0 {
		l.foundAt(d.place(n.Content[0]))
	}
	for key, value := range d.entries(n) {
		if field, ok := fieldOf(dst, key.Value); ok {
			d.decode(value, field)
			continue
		}
		d.fail(key, "unknown key %q%s", key.Value, hint(key.Value, keys(dst.Type())))
	}
}

// table fills a map whose keys the file is free to choose.
func (d *decoder) table(n *yaml.Node, dst reflect.Value) {
	if n.Kind != yaml.MappingNode {
		d.fail(n, "need keys and values")
		return
	}
	dst.Set(reflect.MakeMap(dst.Type()))
	for key, value := range d.entries(n) {
		v := reflect.New(dst.Type().Elem()).Elem()
		d.decode(value, v)
		dst.SetMapIndex(reflect.ValueOf(key.Value), v)
	}
}

// entries are the keys and values of a mapping.
func (d *decoder) entries(n *yaml.Node) iter.Seq2[*yaml.Node, *yaml.Node] {
	return func(yield func(key, value *yaml.Node) bool) {
		seen := map[string]bool{}
		for pair := range slices.Chunk(n.Content, 2) {
			key, value := pair[0], pair[1]
			if seen[key.Value] {
				d.fail(key, "the key %q is here twice: keep one", key.Value)
			}
			seen[key.Value] = true
			if !yield(key, value) {
				return
			}
		}
	}
}

func (d *decoder) sequence(n *yaml.Node, dst reflect.Value) {
	if n.Kind != yaml.SequenceNode {
		d.fail(n, "need a list: start each entry with a dash")
		return
	}
	for _, item := range n.Content {
		v := reflect.New(dst.Type().Elem()).Elem()
		d.decode(item, v)
		dst.Set(reflect.Append(dst, v))
	}
}

func (d *decoder) scalar(n *yaml.Node, dst reflect.Value) {
	if n.Kind != yaml.ScalarNode {
		d.fail(n, "need a single plain value")
		return
	}
	text := n.Value
	if u, ok := dst.Addr().Interface().(encoding.TextUnmarshaler); ok {
		if err := u.UnmarshalText([]byte(text)); err != nil {
			d.fail(n, "%s", err)
		}
		return
	}
	switch dst.Kind() {
	case reflect.String:
		dst.SetString(text)
	case reflect.Bool:
		if text != "true" && text != "false" {
			d.fail(n, "%q is not true or false", text)
		}
		dst.SetBool(text == "true")
	default:
		v, err := strconv.ParseInt(strings.ReplaceAll(text, "_", ""), 10, dst.Type().Bits())
		if err != nil {
			d.fail(n, "%q is not a whole number", text)
		}
		dst.SetInt(v)
	}
}

func fieldOf(v reflect.Value, key string) (reflect.Value, bool) {
	for i := range v.NumField() {
		if v.Type().Field(i).Tag.Get("yaml") == key && key != "" {
			return v.Field(i), true
		}
	}
	return reflect.Value{}, false
}

func keys(t reflect.Type) []string {
	var names []string
	for i := range t.NumField() {
		if name := t.Field(i).Tag.Get("yaml"); name != "" {
			names = append(names, name)
		}
	}
	return names
}

// hint ends an error about a word that is not known.
func hint(word string, known []string) string {
	if near := Nearest(word, known); near != "" {
		return fmt.Sprintf(", did you mean %q?", near)
	}
	return "; known here: " + strings.Join(known, ", ")
}
