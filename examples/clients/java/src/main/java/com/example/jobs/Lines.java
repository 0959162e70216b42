package com.example.jobs;

import com.google.gson.FieldNamingPolicy;
import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.google.gson.JsonSerializer;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Message;
import com.google.protobuf.util.JsonFormat;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;

/** One JSON object a line on standard output. */
final class Lines {
    /** In UTF-8 whatever the locale, and flushed at once. */
    private static final PrintStream OUT = new PrintStream(
            new FileOutputStream(FileDescriptor.out), true, StandardCharsets.UTF_8);

    private static final JsonFormat.Printer MESSAGES =
            JsonFormat.printer().preservingProtoFieldNames();

    private static final Gson JSON = new GsonBuilder()
            .setFieldNamingPolicy(FieldNamingPolicy.LOWER_CASE_WITH_UNDERSCORES)
            .serializeNulls()
            .registerTypeHierarchyAdapter(
                    Message.class, (JsonSerializer<Message>) (each, type, context) -> json(each))
            .create();

    /** The facts are a map or a record; messages may be among them. */
    static void print(String event, Object facts) {
        var line = new JsonObject();
        line.addProperty("event", event);
        JSON.toJsonTree(facts).getAsJsonObject().asMap().forEach(line::add);
        OUT.println(JSON.toJson(line));
    }

    /** In protobuf's own JSON: int64 as strings, for readers that lose digits. */
    private static JsonElement json(Message message) {
        try {
            return JsonParser.parseString(MESSAGES.print(message));
        } catch (InvalidProtocolBufferException unknown) {
            throw new IllegalArgumentException("an Any of a type not known here", unknown);
        }
    }

    private Lines() {}
}
