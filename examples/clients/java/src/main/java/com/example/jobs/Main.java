package com.example.jobs;

import io.grpc.StatusRuntimeException;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.function.BiConsumer;

/**
 * A Jobledger client to copy from: an owner of jobs, a worker, and an operator.
 *
 * <pre>
 * mvn -B -q package
 * java -jar target/jobs.jar create|get|list|watch|output|work|complete|limit --server HOST:PORT …
 * </pre>
 *
 * It prints one JSON object a line. The commands, their options and what they print:
 * tests/polyglot/README.md.
 */
public final class Main {
    private record Command(BiConsumer<Client, Options> run, Set<String> options) {
        Command(BiConsumer<Client, Options> run, String... options) {
            this(run, Set.of(options));
        }
    }

    private static final Map<String, Command> COMMANDS = Map.of(
            "create", new Command(
                    Owner::create,
                    "server", "user", "type", "request-id", "stall-timeout", "max-attempts",
                    "priority", "fairness-key", "concurrency-key", "unique-key", "unique-policy",
                    "parameters", "label"),
            "get", new Command(Owner::get, "server", "user", "job"),
            "list", new Command(Owner::list, "server", "user", "page-size"),
            "watch", new Command(Watch::job, "server", "user", "job", "after-version"),
            "output", new Command(Watch::output, "server", "user", "job", "after-offset"),
            "work", new Command(
                    Worker::work, "server", "worker", "type", "outcome", "message", "output",
                    "result", "asset-size"),
            "complete", new Command(Worker::complete, "server", "job", "attempt", "result"),
            "limit", new Command(Limit::set, "server", "name", "max-running"));

    public static void main(String[] arguments) {
        System.exit(run(List.of(arguments)));
    }

    private static int run(List<String> arguments) {
        var command = arguments.isEmpty() ? null : COMMANDS.get(arguments.get(0));
        if (command == null) {
            System.err.println(
                    "usage: create|get|list|watch|output|work|complete|limit --server HOST:PORT …");
            return 2;
        }
        try {
            var options = Options.parse(arguments.subList(1, arguments.size()), command.options());
            try (var client = Client.connect(options.text("server"))) {
                command.run().accept(client, options);
                return 0;
            }
        } catch (Options.Wrong wrong) {
            System.err.println(wrong.getMessage());
            return 2;
        } catch (StatusRuntimeException error) {
            Lines.print("error", Failure.read(error));
            return 1;
        }
    }

    private Main() {}
}
