package com.example.jobs;

import com.google.protobuf.Struct;
import com.google.protobuf.util.JsonFormat;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.function.Function;

/** What follows the command on the command line: {@code --name value} as often as needed. */
record Options(Map<String, List<String>> values) {
    /** The command line is wrong. */
    static final class Wrong extends RuntimeException {
        Wrong(String message) {
            super(message);
        }
    }

    static Options parse(List<String> arguments, Set<String> allowed) {
        var values = new HashMap<String, List<String>>();
        for (var each = arguments.iterator(); each.hasNext(); ) {
            var name = each.next();
            if (!name.startsWith("--") || !allowed.contains(name.substring(2))) {
                throw new Wrong(name + " is not an option of this command");
            }
            if (!each.hasNext()) {
                throw new Wrong(name + " has no value");
            }
            values.computeIfAbsent(name.substring(2), unused -> new ArrayList<>()).add(each.next());
        }
        return new Options(values);
    }

    /** Throws Wrong where it is not there. */
    String text(String name) {
        return optional(name).orElseThrow(() -> new Wrong("--" + name + " is required"));
    }

    /** Where it is repeated, the last one counts. */
    Optional<String> optional(String name) {
        return Optional.ofNullable(values.get(name)).map(all -> all.get(all.size() - 1));
    }

    /** In their order. */
    List<String> all(String name) {
        return values.getOrDefault(name, List.of());
    }

    Optional<Integer> integer(String name) {
        return optional(name).map(text -> number(name, text, Integer::valueOf));
    }

    Optional<Long> integer64(String name) {
        return optional(name).map(text -> number(name, text, Long::valueOf));
    }

    private static <N> N number(String name, String text, Function<String, N> read) {
        try {
            return read.apply(text);
        } catch (NumberFormatException notOne) {
            throw new Wrong("--" + name + " " + text + ": not a whole number in its range");
        }
    }

    /** Reads a file with one JSON object. */
    Optional<Struct> struct(String name) {
        return optional(name).map(file -> {
            try (var reader = Files.newBufferedReader(Path.of(file))) {
                var struct = Struct.newBuilder();
                JsonFormat.parser().merge(reader, struct);
                return struct.build();
            } catch (IOException unreadable) {
                throw new Wrong("--" + name + " " + file + ": " + unreadable);
            }
        });
    }

    /** Divides each {@code key=value} at its first {@code =}. */
    Map<String, String> map(String name) {
        var map = new HashMap<String, String>();
        for (var pair : all(name)) {
            var divided = pair.split("=", 2);
            if (divided.length < 2) {
                throw new Wrong("--" + name + " " + pair + ": no = in it");
            }
            map.put(divided[0], divided[1]);
        }
        return map;
    }
}
