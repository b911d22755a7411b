package config

import (
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// decoder fills a struct from YAML. The library's own decoder stops at the first
// mistake; this one goes on and keeps them all.
type decoder struct {
	file string
	errs []error
}

func parse(file string, text []byte) (File, error) {
	d := &decoder{file: file}
	tree, err := parser.ParseBytes(text, 0)
	if err != nil {
		return File{}, d.syntax(err)
	}
	var f File
	for i, doc := range tree.Docs {
		switch {
		case i > 0:
			d.fail(doc, "a second document: keep one")
		case doc.Body != nil:
			d.decode(doc.Body, reflect.ValueOf(&f).Elem())
		}
	}
	if len(d.errs) == 0 {
		for _, err := range f.validateStreams() {
			d.errs = append(d.errs, fmt.Errorf("%s: %w", file, err))
		}
		for _, h := range f.Worker.Handlers {
			d.errs = append(d.errs, h.validate()...)
		}
	}
	return f, errors.Join(d.errs...)
}

func (d *decoder) syntax(err error) error {
	var e yaml.Error
	if errors.As(err, &e) && e.GetToken() != nil {
		at := e.GetToken().Position
		return fmt.Errorf("%s:%d:%d: %s", d.file, at.Line, at.Column, e.GetMessage())
	}
	return fmt.Errorf("%s: %w", d.file, err)
}

func (d *decoder) fail(n ast.Node, format string, args ...any) {
	d.errs = append(d.errs, fmt.Errorf("%s: %s", d.place(n), fmt.Sprintf(format, args...)))
}

func (d *decoder) place(n ast.Node) string {
	at := n.GetToken().Position
	return fmt.Sprintf("%s:%d:%d", d.file, at.Line, at.Column)
}

// located wants to know where the file has it.
type located interface{ foundAt(place string) }

func (d *decoder) decode(n ast.Node, dst reflect.Value) {
	_, isText := dst.Addr().Interface().(encoding.TextUnmarshaler)
	switch {
	case n.Type() == ast.NullType:
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

// entries are the keys and values of n.
func entries(n ast.Node) (list []*ast.MappingValueNode, ok bool) {
	switch m := n.(type) {
	case *ast.MappingNode:
		return m.Values, true
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{m}, true
	}
	return nil, n.Type() == ast.CommentType
}

func (d *decoder) mapping(n ast.Node, dst reflect.Value) {
	list, ok := entries(n)
	if !ok {
		d.fail(n, "need keys and values: %s", strings.Join(keys(dst.Type()), ", "))
		return
	}
	if l, ok := dst.Addr().Interface().(located); ok && len(list) > 0 {
		l.foundAt(d.place(list[0].Key))
	}
	for _, e := range list {
		key := e.Key.GetToken().Value
		if field, ok := fieldOf(dst, key); ok {
			d.decode(e.Value, field)
			continue
		}
		d.fail(e.Key, "unknown key %q%s", key, hint(key, keys(dst.Type())))
	}
}

// table fills a map whose keys the file is free to choose.
func (d *decoder) table(n ast.Node, dst reflect.Value) {
	list, ok := entries(n)
	if !ok {
		d.fail(n, "need keys and values")
		return
	}
	dst.Set(reflect.MakeMap(dst.Type()))
	for _, e := range list {
		v := reflect.New(dst.Type().Elem()).Elem()
		d.decode(e.Value, v)
		dst.SetMapIndex(reflect.ValueOf(e.Key.GetToken().Value), v)
	}
}

func (d *decoder) sequence(n ast.Node, dst reflect.Value) {
	s, ok := n.(*ast.SequenceNode)
	if !ok {
		d.fail(n, "need a list: start each entry with a dash")
		return
	}
	for _, item := range s.Values {
		v := reflect.New(dst.Type().Elem()).Elem()
		d.decode(item, v)
		dst.Set(reflect.Append(dst, v))
	}
}

func (d *decoder) scalar(n ast.Node, dst reflect.Value) {
	if _, ok := n.(ast.ScalarNode); !ok {
		d.fail(n, "need a single plain value")
		return
	}
	text := n.GetToken().Value
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
