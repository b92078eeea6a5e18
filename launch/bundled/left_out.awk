# From the libraries' needs to a stand-in for those that are left out: reads lines "SYMBOL[@VERSION]" and writes, with -v part=c, a
# C file that defines each as a function, with -v part=map, the linker's version script. A function ends the program, but where
# libvips calls it unasked, at its start or to ask whether a file is of a format: there it does nothing, or says no.
function stand_in(symbol) {
    return symbol ~ /^(rsvg_|gsf_|Imf|Mat_)/ ? "quest_nothing" : symbol ~ /^ff/ ? "quest_failed" : "quest_left_out"
}
{
    split($1, name, "@")
    version_of[name[1]] = name[2]
}
END {
    if (part == "c") {
        print "#include <stddef.h>\n#include <unistd.h>"
        print "static const char text[] = \"error: this bundle leaves the library out that is needed for this\\n\";"
        print "void quest_left_out(void) { (void)!write(2, text, sizeof text - 1); _exit(2); }"
        print "void *quest_nothing(void) { return NULL; }"
        print "int quest_failed(void) { return 1; }"
        for (symbol in version_of)
            print "void " symbol "(void) __attribute__((alias(\"" stand_in(symbol) "\")));"
    } else {
        for (symbol in version_of)
            if (version_of[symbol] != "")
                members[version_of[symbol]] = members[version_of[symbol]] " " symbol ";"
        for (version in members)
            print version " {" members[version] " };"
    }
}
