# cmake -DROOT=... -DFOLDERS=a;b -DOUTPUT=x.cpp -P sources.cmake: C++ that tells which headers a library is built from, a
# line of path and SHA-256 each. core/gpu.py compares them with what a GPU kernel includes.
set(lines)
foreach(folder IN LISTS FOLDERS)
  file(GLOB_RECURSE paths RELATIVE ${ROOT} ${ROOT}/${folder}/*.hpp ${ROOT}/${folder}/*.def)
  foreach(path IN LISTS paths)
    file(SHA256 ${ROOT}/${path} hash)
    string(APPEND lines "    \"${path} ${hash}\\n\"\n")
  endforeach()
endforeach()
file(WRITE ${OUTPUT} "extern \"C\" __attribute__((visibility(\"default\"))) const char* warpgrid_sources() {
  return
${lines}    \"\";
}
")
